import hashlib
import os

import pytest

from trainyard.tasks.runtime.node.pool import Entry, Pool, safe_relative


@pytest.fixture
def pool(tmp_path):
    pool = Pool(tmp_path / "node")
    yield pool
    pool.close()


def put(pool, content):
    sha256 = hashlib.sha256(content).hexdigest()
    for start in range(0, len(content), 3):
        pool.write(sha256, content[start : start + 3])
    assert pool.adopt(sha256) is None
    return sha256


def content_of(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_what_has_arrived_is_not_lacking(pool):
    here, empty = put(pool, b"some bytes"), put(pool, b"")
    assert pool.lacking([here, empty, "0" * 64]) == ["0" * 64]


def test_bytes_that_are_not_those_of_the_digest_are_refused(pool):
    sha256 = hashlib.sha256(b"right").hexdigest()
    pool.write(sha256, b"wrong")
    assert "hash to" in pool.adopt(sha256)
    assert pool.lacking([sha256]) == [sha256]


def test_a_damaged_object_is_lacking_again(pool, tmp_path):
    sha256 = put(pool, b"some bytes")
    path = tmp_path / "node" / "objects" / sha256[:2] / sha256
    path.chmod(0o644)
    path.write_bytes(b"SOME BYTES")
    assert pool.lacking([sha256]) == [sha256]


def test_what_was_proven_is_not_hashed_again(pool, tmp_path, monkeypatch):
    sha256 = put(pool, b"some bytes")
    pool.settle()
    again = Pool(tmp_path / "node")
    monkeypatch.setattr("trainyard.tasks.runtime.node.pool._digest", lambda path: pytest.fail("hashed again"))
    assert again.lacking([sha256]) == []
    again.close()


def test_a_copy_can_be_written_to_and_leaves_the_pool_alone(pool, tmp_path):
    sha256 = put(pool, b"print()")
    pool.build(tmp_path / "work", [Entry("a/train.py", sha256), Entry("run.sh", sha256, True)], linked=False)
    assert os.access(tmp_path / "work" / "run.sh", os.X_OK)
    (tmp_path / "work" / "a" / "train.py").write_bytes(b"changed")
    assert pool.lacking([sha256]) == []


def test_a_dataset_stays_while_it_is_right(pool, tmp_path):
    entries = [Entry("a", put(pool, b"1")), Entry("b/c", put(pool, b"2"))]
    data = tmp_path / "data"
    pool.build(data, entries, linked=True)
    before = data.stat().st_ino
    pool.build(data, entries, linked=True)
    assert data.stat().st_ino == before
    (data / "more").touch()
    pool.build(data, entries, linked=True)
    assert content_of(data) == {"a": b"1", "b/c": b"2"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_path_that_leaves_its_directory(path, pool, tmp_path):
    with pytest.raises(ValueError, match="leaves its directory"):
        safe_relative(path)
    with pytest.raises(ValueError, match="leaves its directory"):
        pool.build(tmp_path / "out", [Entry(path, put(pool, b"x"))], linked=False)
