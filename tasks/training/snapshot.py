"""The source snapshot: which files of a source directory make the training project, and their digest."""

import os
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import InvalidInputError

ALWAYS_IGNORED = (
    *(".git/", "__pycache__/", "*.pyc", ".venv/", ".ipynb_checkpoints/", ".trainyard/"),
    *("/outputs/", "/logs/"),  # of a run by hand: they would be collected as if this training had made them
)
IGNORE_FILES = (".gitignore", ".amlignore")


def snapshot_source(source: Path, store: ArtifactStore) -> ArtifactRef:
    """Put a source directory into the store, as one unit; its digest is the source's identity.

    Files that the directory's ``.gitignore`` or ``.amlignore`` name are left out, and so are its ``outputs/`` and
    ``logs/``, which a run fills.

    Raises:
        InvalidInputError: A link leads out of the directory.
    """
    return store.put_files({path.relative_to(source).as_posix(): path for path in source_files(source)})


def source_files(source: Path) -> Iterator[Path]:
    """Every file of the snapshot; links inside the directory count as what they point at."""
    ignored = _ignored(source)
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if not ignored.match_file(f"{_relative(here / f, source)}/"))
        for path in (here / name for name in [*folders, *sorted(files)]):
            if ignored.match_file(_relative(path, source)):
                continue
            if path.is_symlink():
                _check_link(path, source)
            if path.is_file():
                _check_name(path, source)
                yield path


def _ignored(source: Path) -> GitIgnoreSpec:
    lines = list(ALWAYS_IGNORED)
    for name in IGNORE_FILES:
        if (source / name).is_file():
            lines += (source / name).read_text().splitlines()
    return GitIgnoreSpec.from_lines(lines)


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


def _check_name(path: Path, source: Path) -> None:
    """A name that is not UTF-8 could not be given back as it was."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = str(path.relative_to(source))
        raise InvalidInputError(
            f"{name!r} in the source directory is not named in UTF-8; rename it, or name it in .amlignore."
        ) from None


def _check_link(path: Path, source: Path) -> None:
    if not path.resolve().is_relative_to(source.resolve()):
        raise InvalidInputError(
            f"{path} is a link to {path.resolve()}, outside the source directory {source}: the run would not have it. "
            "Copy the target in, or pass it as data."
        )
    if path.is_dir():
        raise InvalidInputError(f"{path} is a link to a directory: put the directory itself into {source}.")


def left_out(source: Path) -> list[str]:
    """What the directory's own ignore files keep out of the snapshot: files, and folders with a slash at the end."""
    ignored, always = _ignored(source), GitIgnoreSpec.from_lines(ALWAYS_IGNORED)
    found = []
    for folder, folders, files in os.walk(source):
        names = [f"{_relative(Path(folder, name), source)}/" for name in sorted(folders)]
        found += [name for name in names if ignored.match_file(name) and not always.match_file(name)]
        folders[:] = [Path(name).name for name in names if not ignored.match_file(name)]
        paths = (_relative(Path(folder, name), source) for name in sorted(files))
        found += [path for path in paths if ignored.match_file(path) and not always.match_file(path)]
    return found
