import shutil

import pytest

from trainyard.tasks.artifacts.local_files import reflink, walk_files


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


def test_what_vanishes_while_a_directory_is_walked_is_passed_over_where_that_may_be(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("x")
        (tmp_path / f"folder-{name}").mkdir()
        (tmp_path / f"folder-{name}" / "x").write_text("x")

    def walk(**options):
        found = []
        for key, _ in walk_files(tmp_path, **options):
            found.append(key)
            if key == "a":  # names of a directory are read before its files are looked at
                (tmp_path / "b").unlink()
                shutil.rmtree(tmp_path / "folder-b")
        return found

    assert walk(may_vanish=True) == ["a", "c", "folder-a/x", "folder-c/x"]
    (tmp_path / "b").write_text("x")
    (tmp_path / "folder-b").mkdir()
    with pytest.raises(FileNotFoundError):
        walk()
