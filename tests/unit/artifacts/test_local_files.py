import os

import pytest

from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.artifacts.local_files import reflink
from trainyard.tasks.errors import ObjectChangedError


def test_a_reflink_has_bytes_of_its_own_or_is_not_made(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"alpha" * 10_000)
    if not reflink(source, target):
        assert target.read_bytes() == b""
        pytest.skip(f"the filesystem of {tmp_path} does not share extents")
    with source.open("r+b") as stream:
        stream.write(b"ALPHA")
    assert target.read_bytes() == b"alpha" * 10_000


def test_what_cannot_be_shared_for_another_reason_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        reflink(tmp_path / "missing", tmp_path / "target")


def test_a_file_that_changed_since_it_was_listed_is_never_cloned(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"alpha")
    location = Location(str(source))
    info = location.find_object()
    os.utime(source, ns=(1, 1))
    cloned = None
    try:
        cloned = location.clone_version(info, tmp_path / "target")
    except ObjectChangedError:
        return
    assert cloned is False
