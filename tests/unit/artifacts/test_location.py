import errno
import os
import threading

import pytest

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.objects import ObjectInfo, is_folder_marker
from trainyard.tasks.artifacts.storage_errors import translated
from trainyard.tasks.errors import (
    InvalidInputError,
    ObjectChangedError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)


@pytest.fixture(params=["file", "memory"])
def root(request, tmp_path):
    url = tmp_path.as_uri() if request.param == "file" else f"memory://{tmp_path.name}-{os.getpid()}"
    return Location(url)


def test_bytes_come_back_and_can_be_deleted(root):
    place = root / "a/b c.txt"
    assert not place.exists()
    place.write_bytes(b"one")
    place.write_bytes(b"two")
    assert (place.exists(), place.read_bytes(), b"".join(place.read_chunks())) == (True, b"two", b"two")
    place.delete()
    place.delete()
    assert not place.exists()


def test_of_several_creators_one_wins(root):
    place, won = root / "lock", []
    threads = [
        threading.Thread(target=lambda n=n: won.append(n) if place.create_bytes(b"%d" % n) else None) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read_bytes() == b"%d" % won[0]


def test_listing_gives_keys_sizes_and_versions(root):
    (root / "x/b.txt").write_bytes(b"beta")
    (root / "x/sub/a.txt").write_bytes(b"")
    before = {info.key: info for info in (root / "x").list_objects()}
    assert {key: info.num_bytes for key, info in before.items()} == {"b.txt": 4, "sub/a.txt": 0}
    (root / "x/b.txt").write_bytes(b"BETA")
    after = {info.key: info for info in (root / "x").list_objects()}
    assert after["b.txt"].version != before["b.txt"].version
    assert after["sub/a.txt"] == before["sub/a.txt"]
    assert root.list_names() == ["x"]
    assert (root / "nothing").list_names() == []


def test_an_object_a_prefix_and_nothing_are_told_apart(root):
    (root / "x/b.txt").write_bytes(b"beta")
    found = (root / "x/b.txt").find_object()
    assert (found.key, found.num_bytes) == ("b.txt", 4)
    assert (root / "x").find_object() is None
    assert (root / "x").first_object().key == "b.txt"
    with pytest.raises(StorageNotFoundError):
        (root / "y").find_object()


def test_one_version_is_read_or_none(root):
    place = root / "b.txt"
    place.write_bytes(b"beta")
    info = place.find_object()
    assert b"".join(place.read_version(info)) == b"beta"
    place.write_bytes(b"BETA")
    with pytest.raises(ObjectChangedError, match=r"b\.txt"):
        list(place.read_version(info))
    place.delete()
    with pytest.raises(ObjectChangedError):
        list(place.read_version(info))


def test_reading_what_is_not_there_is_our_error(root):
    with pytest.raises(StorageNotFoundError, match=r"gone\.txt"):
        (root / "gone.txt").read_bytes()


def test_a_local_write_is_whole_or_not_at_all(tmp_path):
    place = Location(str(tmp_path)) / "a"
    place.write_bytes(b"old")
    with pytest.raises(TypeError):
        place.write_bytes("not bytes")
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_upload_is_a_copy(root, tmp_path):
    path = tmp_path / "upload.bin"
    path.write_bytes(b"x" * 3_000_000)
    (root / "up/loaded.bin").upload(path)
    assert (root / "up/loaded.bin").read_bytes() == path.read_bytes()


def test_an_etag_loses_its_quotes_as_a_version():
    listed = ObjectInfo.from_listing("a", {"Size": 3, "ETag": '"abc"'})
    assert listed == ObjectInfo("a", 3, "abc", '"abc"')
    assert listed == ObjectInfo.from_listing("a", {"size": 3, "ETag": "abc"})


def test_markers_of_empty_folders_are_known():
    assert is_folder_marker("train/", 0)
    assert not is_folder_marker("train/", 5)
    assert not is_folder_marker("train", 0)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError("x"), StorageNotFoundError),
        (NotADirectoryError("x"), StorageNotFoundError),
        (PermissionError("x"), StorageAccessError),
        (ImportError("x"), InvalidInputError),
        (ValueError("Invalid endpoint: x"), InvalidInputError),
        (ConnectionResetError("x"), StorageUnavailableError),
        (TimeoutError("x"), StorageUnavailableError),
        (OSError(errno.EBUSY, "x"), StorageUnavailableError),
        (ObjectChangedError("x"), ObjectChangedError),
        (OSError(errno.ENOSPC, "x"), OSError),
        (ValueError("x"), ValueError),
    ],
    ids=repr,
)
def test_foreign_errors_become_ours(raised, expected):
    with pytest.raises(expected) as caught, translated("s3://bucket/key"):
        raise raised
    assert caught.type is expected


def test_an_unknown_scheme_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(InvalidInputError, match="unknown scheme 'wasbs4'"):
        Location("wasbs4://b")
    assert Location(str(tmp_path)).url == tmp_path.as_uri()
    assert (Location(str(tmp_path)) / "a").local_path == tmp_path / "a"
