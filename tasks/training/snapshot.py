"""The source snapshot: which files of a source directory make the training project, and their digest."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pathspec import GitIgnoreSpec

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import InvalidInputError

ALWAYS_IGNORED = (
    *(".git/", "__pycache__/", "*.pyc", ".venv/", ".ipynb_checkpoints/", ".trainyard/"),
    *("/outputs/", "/logs/"),  # of a run by hand: they would be collected as if this training had made them
)
GITIGNORE, AMLIGNORE = ".gitignore", ".amlignore"

LARGE_BYTES, MANY_FILES = 300 * 10**6, 20_000
"""A snapshot above either is probably not meant: it is copied for every run."""

log = logging.getLogger(__name__)


def snapshot_source(source: Path, store: ArtifactStore) -> ArtifactRef:
    """Put a source directory into the store, as one unit; its digest is the source's identity.

    Files that the directory's ignore files name are left out (see ``source_files``), and so are its ``outputs/`` and
    ``logs/``, which a run fills.

    Raises:
        InvalidInputError: A link leads out of the directory.
    """
    files = {path.relative_to(source).as_posix(): path for path in source_files(source)}
    warning = size_warning({name: path.stat().st_size for name, path in files.items()})
    if warning:
        log.warning("The source directory %s %s", source, warning)
    return store.put_files(files)


def size_warning(sizes: Mapping[str, int], large: int = LARGE_BYTES, many: int = MANY_FILES) -> str:
    """What to say of a snapshot that is larger than source code is; empty where there is nothing to say.

    Args:
        sizes: Bytes of each file, by its path in the snapshot.
        large: Bytes that are too many.
        many: Files that are too many.
    """
    total = sum(sizes.values())
    if total <= large and len(sizes) <= many:
        return ""
    by_size = total > large
    weights: Counter[str] = Counter()
    for name, size in sizes.items():
        folder, slash, _ = name.partition("/")
        weights[folder + slash] += size if by_size else 1
    shown = [
        f"{name} ({weight / 10**6:,.0f} MB)" if by_size else f"{name} ({weight:,} files)"
        for name, weight in weights.most_common(3)
    ]
    return (
        f"has {len(sizes):,} files of {total / 10**6:,.0f} MB, and every run copies them. Most of it: "
        f"{', '.join(shown)}. Leave out what is no source by naming it in {GITIGNORE} (or in {AMLIGNORE}, which then "
        "takes its place), and pass data as a Datastore."
    )


def source_files(source: Path) -> Iterator[Path]:
    """Every file of the snapshot; links inside the directory count as what they point at.

    Where the directory has an ``.amlignore``, that alone says what is left out, as in the first-generation SDK; else
    every ``.gitignore`` does, for its own folder and those below, as git reads them.
    """
    ignored = _Ignored(source)
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        ignored.enter(here)
        folders[:] = sorted(name for name in folders if not ignored.leaves_out(here / name, is_folder=True))
        for path in (here / name for name in [*folders, *sorted(files)]):
            if ignored.leaves_out(path):
                continue
            if path.is_symlink():
                _check_link(path, source)
            if path.is_file():
                _check_name(path, source)
                yield path


class _Ignored:
    """The ignore files of a source directory, read as its folders are entered.

    Args:
        source: The source directory.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._by_folder: dict[Path, GitIgnoreSpec] = {}
        self._name = AMLIGNORE if (source / AMLIGNORE).is_file() else GITIGNORE

    def enter(self, folder: Path) -> None:
        """Read a folder's ignore file; above comes before below."""
        file = folder / self._name
        counts = folder == self._source or self._name == GITIGNORE
        lines = file.read_text(errors="replace").splitlines() if counts and file.is_file() else []
        if folder == self._source:
            lines = [*ALWAYS_IGNORED, *lines]
        if lines:
            self._by_folder[folder] = GitIgnoreSpec.from_lines(lines)

    def leaves_out(self, path: Path, *, is_folder: bool = False) -> bool:
        """What the closest file with a pattern for it says (git's documentation, gitignore, "precedence")."""
        for folder in path.parents:
            spec = self._by_folder.get(folder)
            name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
            decided = spec.check_file(name).include if spec is not None else None
            if decided is not None:
                return decided
            if folder == self._source:
                break
        return False


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
    try:
        target = path.resolve()
        path.stat()
    except FileNotFoundError:  # it leads nowhere, and is left out
        target = source.resolve()
    except (RuntimeError, OSError) as error:  # RuntimeError: what pathlib raised for a loop before Python 3.13
        raise InvalidInputError(
            f"{path} is a link that cannot be followed ({error}): remove it, or name it in {GITIGNORE}."
        ) from error
    if not target.is_relative_to(source.resolve()):
        raise InvalidInputError(
            f"{path} is a link to {target}, outside the source directory {source}: the run would not have it. "
            "Copy the target in, or pass it as data."
        )
    if path.is_dir():
        raise InvalidInputError(f"{path} is a link to a directory: put the directory itself into {source}.")


def left_out(source: Path) -> list[str]:
    """What the directory's own ignore files keep out of the snapshot: files, and folders with a slash at the end."""
    ignored, always = _Ignored(source), GitIgnoreSpec.from_lines(ALWAYS_IGNORED)
    found = []
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        ignored.enter(here)
        out = [name for name in sorted(folders) if ignored.leaves_out(here / name, is_folder=True)]
        names = [*(f"{name}/" for name in out), *(name for name in sorted(files) if ignored.leaves_out(here / name))]
        paths = [(here / name).relative_to(source).as_posix() + "/" * name.endswith("/") for name in names]
        found += [path for path in paths if not always.match_file(path)]
        folders[:] = sorted(set(folders) - set(out))
    return found
