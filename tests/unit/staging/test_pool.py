import hashlib
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.staging.staged import damage_bytes
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.staging import index
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.pool import FinishedFile, ObjectPool


@pytest.fixture
def pool(tmp_path):
    with closing(StagingIndex(tmp_path / "objects" / "index.sqlite")) as known:
        yield ObjectPool(tmp_path, known)


@pytest.fixture
def finish(tmp_path):
    """A finished file with some bytes, as a transfer gives it."""

    def write(data, name):
        path = tmp_path / name
        path.write_bytes(data)
        return FinishedFile(str(path), hashlib.sha256(data).hexdigest(), len(data))

    return write


def content(pool, finished):
    with open(pool.path(finished.sha256), "rb") as file:
        return file.read()


def test_two_objects_of_one_content_are_one_file(pool, finish):
    first, second, other = finish(b"same", "a"), finish(b"same", "b"), finish(b"other", "c")
    pool.adopt([first, second, other])
    assert content(pool, first) == b"same" and content(pool, other) == b"other"
    assert not any(os.path.exists(file.path) for file in (first, second, other))


def test_what_is_in_the_pool_stays_the_file_that_it_is(pool, finish):
    pool.adopt([finish(b"same", "a")])
    again, other = finish(b"same", "b"), finish(b"other", "c")
    inode = os.stat(pool.path(again.sha256)).st_ino
    pool.adopt([other, again])
    assert os.stat(pool.path(again.sha256)).st_ino == inode
    assert content(pool, other) == b"other"
    assert not os.path.exists(again.path)


@pytest.mark.parametrize("damage", [b"bent", b"longer than it was"])
def test_what_is_damaged_in_the_pool_is_replaced_and_kept_to_look_at(pool, finish, tmp_path, damage):
    pool.adopt([finish(b"same", "a")])
    twice = [finish(b"same", "b"), finish(b"same", "c")]
    path = pool.path(twice[0].sha256)
    os.chmod(path, 0o644)
    with open(path, "wb") as file:
        file.write(damage)
    pool.adopt(twice)
    assert content(pool, twice[0]) == b"same"
    assert [aside.read_bytes() for aside in (tmp_path / "damaged").iterdir()] == [damage]


@pytest.mark.parametrize("harm", ["damaged", "removed"])
def test_content_that_cannot_be_linked_was_damaged_or_removed(pool, finish, tmp_path, harm):
    finished = finish(b"same", "a")
    pool.adopt([finished])
    path = Path(pool.path(finished.sha256))
    if harm == "removed":
        path.unlink()
    else:
        damage_bytes(path)
    with pytest.raises(ArtifactDamagedError, match=f"was {harm}"):
        pool.link([(finished.sha256, 4)], [str(tmp_path / "one")])


def test_files_of_the_pool_are_read_only_and_need_not_be_hashed_again(pool, finish, monkeypatch):
    finished = finish(b"same", "a")
    pool.adopt([finished])
    assert os.stat(pool.path(finished.sha256)).st_mode & 0o777 == 0o444
    monkeypatch.setattr("trainyard.tasks.staging.index.digest_file", lambda path: pytest.fail(f"{path} was hashed"))
    assert list(pool.find_held([(finished.sha256, finished.num_bytes)])) == [True]


def test_what_changes_before_it_is_linked_is_not_believed(pool, finish, tmp_path, monkeypatch):
    finished = finish(b"same", "a")
    pool.adopt([finished])
    link = os.link

    def link_late(source, destination):
        time.sleep(0.02)  # a filesystem's clock has ticks
        os.chmod(source, 0o644)
        with open(source, "r+b") as file:
            file.write(b"bent")
        link(source, destination)

    monkeypatch.setattr(os, "link", link_late)
    target = tmp_path / "linked"
    with pool._index.batch():
        pool.link([(finished.sha256, 4)], [str(target)])
    assert target.read_bytes() == b"bent"
    assert not pool._index.is_intact(target, 4, finished.sha256)


def test_links_of_proven_files_are_not_hashed_again(pool, finish, tmp_path, monkeypatch):
    finished = finish(b"same", "a")
    pool.adopt([finished])
    hashed = []
    monkeypatch.setattr(index, "digest_file", lambda path, *_: hashed.append(path))
    targets = [tmp_path / "one", tmp_path / "two"]
    with pool._index.batch():
        pool.link([(finished.sha256, 4)] * 2, map(str, targets))
    assert all(pool._index.is_intact(target, 4, finished.sha256) for target in targets)
    assert not hashed
