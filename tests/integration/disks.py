"""Disks of their own for tests: a file with a filesystem on it, mounted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEBIBYTE = 1 << 20


@contextmanager
def mounted_image(image: Path, mount: Path, num_mib: int, *make_filesystem: str) -> Iterator[Path]:
    """Mount a new file as a disk; the test is skipped, and says why, where that cannot be.

    Args:
        image: The file, which is made; it has holes until it is written to.
        mount: The directory, which is made.
        num_mib: What the disk says that it has, in MiB.
        make_filesystem: The command that is given the file.
    """
    if os.geteuid():
        pytest.skip("only root may mount a disk")
    if shutil.which(make_filesystem[0]) is None:
        pytest.skip(f"no {make_filesystem[0]} here")
    mount.mkdir()
    with image.open("wb") as stream:
        stream.truncate(num_mib * MEBIBYTE)
    subprocess.run([*make_filesystem, str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file can be mounted as a disk here: {mounted.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)
