import pytest

from trainyard.tasks.artifacts.local_files import reflink


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
