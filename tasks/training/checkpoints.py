"""What a training begins with: whole checkpoints of an earlier attempt, else those that it was told to resume from."""

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from trainyard.tasks.runtime.checkpoints import PARTIAL

log = logging.getLogger(__name__)

ZIP_START = b"PK\x03\x04"
SAFETENSORS = ".safetensors"
CHECKPOINT_SUFFIXES = {".bin", ".ckpt", ".npz", ".pt", ".pt2", ".pth", SAFETENSORS}
NOT_ONE_ZIP = {".distcp"}  # many, one after the other, and other bytes
HEAD_BYTES = 512


def seed_checkpoints(source: Path, checkpoints: Path) -> bool:
    """Copy checkpoints to where a training looks for them, where it has none of its own; whether it was done.

    Copies, never links: a script may write into a checkpoint that is there. All of them appear at once. Scripts that
    take the newest by its time of change are given times in the order of the names, ``epoch-9.pt`` before
    ``epoch-10.pt``: equal data must not depend on when it was written or copied.

    Args:
        source: A directory of checkpoints, or the file of one.
        checkpoints: The training's checkpoint directory; exists.
    """
    if any(checkpoints.iterdir()):
        return False
    scratch = Path(tempfile.mkdtemp(dir=checkpoints.parent, prefix=f".{checkpoints.name}."))
    try:
        if source.is_dir():
            shutil.copytree(source, scratch, dirs_exist_ok=True, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, scratch / source.name)
        _set_times(scratch)
        os.replace(scratch, checkpoints)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _set_times(folder: Path) -> None:
    """Have every file changed a second after the one that comes before it by name, and folders with their last file."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: _natural(path, folder))
    begin_s = time.time() - len(files)
    for position, path in enumerate(files):
        for changed in (path, *path.relative_to(folder).parents[:-1]):
            os.utime(folder / changed, (begin_s + position, begin_s + position))


def _natural(path: Path, folder: Path) -> list[list[str | int]]:
    """Sorts as people count; text and numbers alternate, so that like is compared with like."""
    names = (re.split(r"([0-9]+)", name) for name in path.relative_to(folder).parts)
    return [[int(part) if odd % 2 else part for odd, part in enumerate(parts)] for parts in names]


def set_aside_broken(checkpoints: Path, aside: Path) -> list[Path]:
    """Move files that an interrupted write has left broken out of a script's sight.

    Scripts take the newest checkpoint; one that is broken would fail every further attempt. What can be judged
    without reading all of a file: zip archives (what ``torch.save`` writes, and ``.npz``) that lack their directory,
    ``.safetensors`` of another size than their header says, and checkpoint files that are empty or begin with zeros.
    Legacy pickles (``_use_new_zipfile_serialization=False``) cannot be, and are left.

    Args:
        checkpoints: The training's checkpoint directory.
        aside: Where they go, under the names that they had.

    Returns:
        The names of those that were moved.
    """
    shutil.rmtree(checkpoints / PARTIAL, ignore_errors=True)
    files = sorted(path for path in checkpoints.rglob("*") if path.is_file() and not path.is_symlink())
    moved = list(_move((path for path in files if is_broken(path)), checkpoints, aside))
    dangling = (path for path in sorted(checkpoints.rglob("*")) if path.is_symlink() and not path.exists())
    moved += _move(dangling, checkpoints, aside)
    for folder in sorted((path for path in checkpoints.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    if moved:
        names = ", ".join(map(repr, map(str, moved)))
        log.warning("Checkpoints whose writing was interrupted are set aside in %s: %s", aside, names)
    return moved


def set_aside_all(checkpoints: Path, aside: Path) -> None:
    """Move every checkpoint out of a script's sight: no later attempt is to go on from them.

    Args:
        checkpoints: The training's checkpoint directory.
        aside: Where they go, under the names that they had.
    """
    if list(_move(iter(sorted(checkpoints.iterdir())), checkpoints, aside)):
        log.warning("The checkpoints are set aside in %s", aside)


def _move(paths: Iterator[Path], checkpoints: Path, aside: Path) -> Iterator[Path]:
    for path in paths:
        name = path.relative_to(checkpoints)
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside / name)
        yield name


def is_broken(path: Path) -> bool:
    """Whether a file is a checkpoint that is provably not whole."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(ZIP_START):
        return path.suffix not in NOT_ONE_ZIP and not _has_directory(path)
    if path.suffix == SAFETENSORS:
        return _safetensors_size(path) != path.stat().st_size
    return path.suffix in CHECKPOINT_SUFFIXES and (not head.strip(b"\0") or ZIP_START.startswith(head))


def _has_directory(path: Path) -> bool:
    """Whether a zip archive has its directory, which is written last. Checksums are not read: torch can omit them."""
    try:
        with zipfile.ZipFile(path):
            return True
    except zipfile.BadZipFile:
        return False


def _safetensors_size(path: Path) -> int | None:
    """The size that the header asks for (https://huggingface.co/docs/safetensors, "Format"); None: no header."""
    with path.open("rb") as stream:
        num_bytes = int.from_bytes(stream.read(8), "little")
        if not 2 <= num_bytes <= path.stat().st_size:
            return None
        try:
            tensors = json.loads(stream.read(num_bytes))
            ends = [facts["data_offsets"][1] for name, facts in tensors.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return None
    return 8 + num_bytes + max(ends, default=0)
