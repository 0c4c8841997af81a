import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from trainyard.tasks.artifacts import store as store_module
from trainyard.tasks.artifacts.storage_errors import translated
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, InvalidInputError


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return ArtifactStore(str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}")


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "deep er").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep er" / 'hostile "näme"\n.txt').write_text("b" * 1000)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_tree_comes_back_as_it_was(store, tree, tmp_path):
    ref = store.put_tree(tree)
    out = store.materialize(ref, tmp_path / "out")
    assert contents(out) == contents(tree)
    assert ref.num_bytes == sum(len(data) for data in contents(tree).values())
    assert os.access(out / "run.sh", os.X_OK)
    assert not (out / "a.txt").stat().st_mode & 0o111


def test_equal_trees_have_equal_digests_and_another_name_or_byte_another(store, tree):
    before = store.put_tree(tree).sha256
    assert store.put_tree(tree).sha256 == before
    (tree / "a.txt").rename(tree / "b.txt")
    renamed = store.put_tree(tree).sha256
    (tree / "b.txt").write_text("B")
    assert len({before, renamed, store.put_tree(tree).sha256}) == 3


def test_bytes_and_entries_are_read_back(store, tree):
    assert store.read_bytes(store.put_bytes(b"hello")) == b"hello"
    assert store.read_entry(store.put_tree(tree), "a.txt") == b"a"
    with pytest.raises(KeyError):
        store.read_entry(store.put_tree(tree), "missing.txt")


@pytest.mark.parametrize("damage", ["delete", "change", "truncate"])
def test_damage_is_found_wherever_it_is(tmp_path, tree, damage):
    store = ArtifactStore(str(tmp_path / "store"))
    ref = store.put_tree(tree)
    for victim in [ref.sha256, *(entry.sha256 for entry in store.list_tree(ref).entries)]:
        path = tmp_path / "store" / "objects" / victim[:2] / victim
        content = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(content[:-1] if damage == "truncate" else b"\0" + content[1:])
        with pytest.raises(ArtifactDamagedError):
            store.verify(ref)
        with pytest.raises(ArtifactDamagedError):
            store.materialize(ref, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        store.put_tree(tree)  # storing it again heals it
        store.verify(ref)


def test_a_local_copy_is_kept_while_it_is_right(store, tree, tmp_path):
    ref = store.put_tree(tree)
    copy = store.materialize_once(ref, tmp_path / "copy")
    inode = (copy / "a.txt").stat().st_ino
    store.materialize_once(ref, copy)
    assert (copy / "a.txt").stat().st_ino == inode
    (copy / "a.txt").write_text("x")
    store.materialize_once(ref, copy)
    assert contents(copy) == contents(tree)


def test_many_writers_of_the_same_content(store):
    refs = []
    threads = [threading.Thread(target=lambda: refs.append(store.put_bytes(b"x" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refs) == 8
    assert len({ref.sha256 for ref in refs}) == 1
    store.verify(refs[0])


def test_a_tree_that_leaves_its_directory_is_refused(store, tmp_path):
    evil = b'{"entries":[{"path":"../evil","sha256":"' + store.put_bytes(b"x").sha256.encode() + b'","num_bytes":1}]}'
    ref = store.put_bytes(evil).model_copy(update={"kind": "tree"})
    with pytest.raises(ArtifactDamagedError, match="outside"):
        store.materialize(ref, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InvalidInputError, match="sthree"):
        ArtifactStore("sthree://bucket/x")


def test_storing_again_heals_every_damaged_file_whether_or_not_the_damage_was_noticed(tmp_path, tree):
    store = ArtifactStore(str(tmp_path / "store"))
    ref = store.put_tree(tree)
    for victim in [ref.sha256, *(entry.sha256 for entry in store.list_tree(ref).entries)]:
        (tmp_path / "store" / "objects" / victim[:2] / victim).write_bytes(b"damaged")
    store.put_tree(tree)
    store.verify(ref)


def test_finding_damage_deletes_nothing(tmp_path):
    """A read over a network may go wrong where the bytes are right; and what is left may help a person."""
    store = ArtifactStore(str(tmp_path / "store"))
    ref = store.put_bytes(b"hello")
    path = tmp_path / "store" / "objects" / ref.sha256[:2] / ref.sha256
    path.write_bytes(b"jello")
    with pytest.raises(ArtifactDamagedError):
        store.verify(ref)
    assert path.read_bytes() == b"jello"


def test_of_several_that_want_a_local_copy_at_once_none_fails(tmp_path, tree):
    store = ArtifactStore(str(tmp_path / "store"))
    ref = store.put_tree(tree)
    for turn in range(20):
        copy = tmp_path / f"copy {turn}"
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(store.materialize_once, ref, copy) for _ in range(4)]
        assert [future.result() for future in made] == [copy] * 4
        assert contents(copy) == contents(tree)


def test_a_damaged_copy_is_replaced_as_a_whole_by_one_of_several(tmp_path, tree):
    """Whoever reads it meanwhile sees all of the wrong one or all of the right one, and nobody fails."""
    store = ArtifactStore(str(tmp_path / "store"))
    for n in range(20):
        (tree / f"more {n}.txt").write_text(str(n) * 1000)
    ref = store.put_tree(tree)
    copy = store.materialize_once(ref, tmp_path / "copies" / "copy")
    num_files, seen, done = len(list(copy.rglob("*"))), set(), threading.Event()

    def read():
        while not done.is_set():
            with suppress(FileNotFoundError):  # in the moment between the two
                folder = os.open(copy, os.O_RDONLY)
                names = os.listdir(folder)
                if os.path.samestat(os.fstat(folder), os.stat(copy)):  # else it is what has been put away
                    seen.add(len(names))
                os.close(folder)

    reader = threading.Thread(target=read)
    num_names = len(list(copy.iterdir()))
    reader.start()
    for _ in range(10):
        (copy / "more 1.txt").write_text("wrong")
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(store.materialize_once, ref, copy) for _ in range(4)]
        assert [future.result() for future in made] == [copy] * 4
        assert contents(copy) == contents(tree)
    done.set()
    reader.join()
    assert (seen - {0}, len(list(copy.rglob("*")))) == ({num_names}, num_files)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy", "copy.lock"]


def test_a_wrong_file_in_the_place_of_a_tree_is_replaced_and_so_is_a_directory_in_that_of_a_file(tmp_path, tree):
    store = ArtifactStore(str(tmp_path / "store"))
    as_tree, as_file = tmp_path / "tree copy", tmp_path / "file copy"
    as_tree.write_text("wrong")
    (as_file / "wrong").mkdir(parents=True)
    assert contents(store.materialize_once(store.put_tree(tree), as_tree)) == contents(tree)
    assert store.materialize_once(store.put_bytes(b"right"), as_file).read_bytes() == b"right"


def test_a_file_that_changes_while_it_is_stored_is_stored_right_or_not_at_all(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path / "store"))
    path = tmp_path / "growing.log"
    path.write_bytes(b"one")
    hash_file = store_module.digest_file
    writes = []

    def hash_then_append(file):
        found = hash_file(file)
        if len(writes) < most_writes:
            writes.append(1)
            with path.open("ab") as stream:
                stream.write(b"more")
        return found

    monkeypatch.setattr(store_module, "digest_file", hash_then_append)
    most_writes = 1
    assert store.read_bytes(store.put_file(path)) == b"onemore"
    most_writes = 100
    path.write_bytes(b"two")
    with pytest.raises(ArtifactDamagedError, match="changes while it is stored"):
        store.put_file(path)
    for found in (tmp_path / "store" / "objects").glob("*/*"):
        assert hash_file(found)[0] == found.name


def test_who_reads_while_others_write_gets_the_whole_content_or_is_told_that_it_is_not_there(store):
    """Again and again as if for the first time: large enough to be met half written."""
    content = os.urandom(1 << 20) * 4
    ref = store.put_bytes(content)
    target, ended = store.root / f"objects/{ref.sha256[:2]}/{ref.sha256}", threading.Event()
    met, num_reads, until = [], 0, time.monotonic() + 60

    def write():
        while not ended.is_set():
            target.delete()
            store.put_bytes(content)
            ended.wait(0.005)  # so that there is something to be met

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while (len(met) < 20 or num_reads < 60) and time.monotonic() < until:
            num_reads += 1
            try:
                met.append(store.read_bytes(ref) == content)
            except ArtifactDamagedError as error:
                assert "is missing" in str(error)
    finally:
        ended.set()
        writer.join()
    assert met and all(met)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES], ids=["EIO", "EACCES"])
def test_an_object_that_this_machine_cannot_read_is_a_damaged_one(tmp_path, monkeypatch, number):
    store = ArtifactStore(str(tmp_path / "store"))
    ref = store.put_bytes(b"hello")

    def fail(location):
        with translated(location.url):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("trainyard.tasks.artifacts.location.Location.read_chunks", fail)
    with pytest.raises(ArtifactDamagedError, match="cannot be read"):
        store.verify(ref)
    monkeypatch.undo()
    store.verify(ref)
