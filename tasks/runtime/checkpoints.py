"""Checkpoints that appear whole under their name, on disk, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

CHECKPOINT_DIRECTORY_VARIABLE = "TRAINYARD_CHECKPOINT_DIR"
PARTIAL = ".partial"
"""Folder of what is being written: a script that globs for its newest checkpoint must not find a half one."""


def checkpoint_directory(environment: Mapping[str, str]) -> Path:
    """Where checkpoints go: the run's directory, or ``outputs/checkpoints`` of a script that runs by hand."""
    return Path(environment.get(CHECKPOINT_DIRECTORY_VARIABLE) or Path.cwd() / "outputs" / "checkpoints")


@contextmanager
def writing_checkpoint(directory: Path, name: str) -> Iterator[Path]:
    """A path to write a checkpoint's file to; it takes its name when the block ends well.

    The bytes are on disk before the name is: after a crash of the machine there is the old file or the new one.

    Args:
        directory: Where checkpoints are.
        name: The file's path below it; one that is there is replaced.

    Raises:
        ValueError: The name would lie outside the directory.
        FileNotFoundError: The block wrote nothing.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise ValueError(f"checkpoint({name!r}): the name must be a relative path, such as 'epoch-3.pt'.")
    (directory / PARTIAL).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=directory / PARTIAL))  # of this call: others may be open in other threads
    scratch = folder / relative.name
    try:
        yield scratch
        if not scratch.is_file():
            raise FileNotFoundError(f"checkpoint({name!r}): nothing was written to {scratch}.")
        _to_disk(scratch)
        target = directory / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch, target)
        _to_disk(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
