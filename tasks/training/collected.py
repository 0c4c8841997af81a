"""The files that a script has left in a folder, with what its links stand for."""

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from trainyard.tasks.training.run_directory import RunDirectory

log = logging.getLogger(__name__)

MOST_HOPS = 40
"""Links that lead to links: as many as Linux follows."""
MOST_NAMES = 10


def collect_files(folder: Path, run: RunDirectory) -> dict[str, Path]:
    """Every file of a folder by its path in it (forward slashes), for the store.

    A link counts as what it points at, a file or a folder, where that is of the run: something that the script wrote,
    or a checkpoint. Others are left out and named: what they lead to is not the run's, and may be anything.

    Args:
        folder: A folder of ``run.source``; need not exist.
        run: A run whose workspace has been kept.
    """
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for path, name, is_kept in _walk(folder, "", (folder.resolve(),), run):
        if is_kept:
            files[name] = path
        else:
            left_out.append(name)
    if left_out:
        more = f" and {len(left_out) - MOST_NAMES} more" if len(left_out) > MOST_NAMES else ""
        names = ", ".join(map(repr, islice(left_out, MOST_NAMES)))
        log.warning(
            "Links in %s/ that lead out of the run, to nothing, or back to where they are, are not kept: %s%s",
            folder.name,
            names,
            more,
        )
    return files


def _walk(folder: Path, below: str, inside: tuple[Path, ...], run: RunDirectory) -> Iterator[tuple[Path, str, bool]]:
    """Each file, its name, and whether it can be kept."""
    for path in sorted(folder.iterdir()):
        name = f"{below}{path.name}"
        target = _target(path, run) if path.is_symlink() else path
        if target is None or target.resolve() in inside:
            yield path, name, False
        elif target.is_dir():
            yield from _walk(target, f"{name}/", (*inside, target.resolve()), run)
        elif target.is_file():
            yield target, name, True


def _target(link: Path, run: RunDirectory) -> Path | None:
    """What a link of the script's stands for, where that is of the run and there.

    While the script ran, the link and what it points at may have been elsewhere: both moved when the run was kept.
    """
    kept = ((run.workspace, run.source), (run.area, run.around))
    path = link
    for _ in range(MOST_HOPS):
        if not path.is_symlink():
            break
        before = _moved(path, [(new, old) for old, new in kept])
        path = _moved(Path(os.path.normpath(before.parent / os.readlink(path))), kept)
    real = path.resolve() if not path.is_symlink() else None
    if real is None or not real.exists():
        return None
    roots = (run.source, run.around, run.checkpoints)
    return real if any(real.is_relative_to(root.resolve()) for root in roots) else None


def _moved(path: Path, moves: Sequence[tuple[Path, Path]]) -> Path:
    """Where a path is after the first move that concerns it; the script may know directories by their real paths."""
    for old, new in moves:
        for begin in (old, old.resolve()):
            if path.is_relative_to(begin):
                return new / path.relative_to(begin)
    return path
