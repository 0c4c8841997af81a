"""Local data that is staged as hard links: no copy, and nobody's change goes unseen."""

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.artifacts.local_files import reflink
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.cleaning.home_inventory import take_home_inventory
from trainyard.tasks.errors import ObjectChangedError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import index, transfer
from trainyard.tasks.staging.dataset import stage_references, verify_staged


@pytest.fixture(autouse=True)
def no_reflinks(tmp_path):
    (tmp_path / "probe").write_bytes(b"x")
    if reflink(tmp_path / "probe", tmp_path / "shared"):
        pytest.skip("this filesystem shares extents, so nothing is hard-linked on it")


def data_at(source):
    return Datastore(url=str(source), link_mode="hardlink")


@pytest.fixture
def stage(source, context):
    """Stage the source; gives the staged data, and the bytes that had to be read for it."""

    def run(reference=None):
        said = []
        product = stage_references([reference or data_at(source).as_mount()], context, said.append)
        return product, said[-1].transferred_bytes

    return run


@pytest.fixture
def hashed(monkeypatch):
    """The files that are hashed, by the name that they have then."""
    paths = []
    for module in (transfer, index):
        real = module.digest_file
        monkeypatch.setattr(module, "digest_file", lambda path, *_, real=real: paths.append(path.name) or real(path))
    return paths


def edit_unseen(path, text):
    """Write to a file and put its time of modification back: only its ctime tells."""
    before = path.stat()
    with path.open("r+") as stream:
        stream.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_staged_files_are_the_users_own_as_they_were(stage, source, context):
    (source / "sub/b.txt").chmod(0o640)
    product, _ = stage()
    staged = staged_path(context, product)
    assert contents(staged) == contents(source)
    for name in ("sub/b.txt", "sub/deep/c d.txt"):
        assert os.path.samefile(staged / name, source / name)
    assert (source / "sub/b.txt").stat().st_mode & 0o777 == 0o640


def test_by_default_nothing_is_linked(source, context):
    staged = staged_path(context, stage_references([Datastore(url=str(source)).as_mount()], context))
    assert not os.path.samefile(staged / "sub/b.txt", source / "sub/b.txt")
    assert (source / "sub/b.txt").stat().st_nlink == 1


def test_one_object_and_what_a_symbolic_link_leads_to(stage, source, context):
    (source / "link.txt").symlink_to(source / "sub" / "b.txt")
    product, _ = stage(data_at(source).path("link.txt"))
    staged = staged_path(context, product)
    assert os.path.samefile(staged, source / "sub" / "b.txt") and not staged.is_symlink()


def test_nothing_unchanged_is_hashed_again_whatever_links_were_made(stage, context, hashed):
    product, _ = stage()
    assert len(hashed) == 4
    del hashed[:]
    again, num_bytes = stage()
    verify_staged(again, context)
    assert again == product and not num_bytes and not hashed


def test_a_replaced_file_is_the_only_one_that_is_hashed(stage, source, context, hashed):
    stage()
    del hashed[:]
    (source / "new").write_text("better")
    os.replace(source / "new", source / "sub" / "b.txt")
    product, num_bytes = stage()
    assert len(hashed) == 1 and num_bytes == len("better")
    assert contents(staged_path(context, product)) == contents(source)


def test_a_change_that_hides_its_time_is_found_and_the_original_stays(stage, source, context):
    before, _ = stage()
    edit_unseen(source / "sub" / "b.txt", "BETA")
    product, _ = stage()
    assert product != before
    assert contents(staged_path(context, product)) == contents(source)
    assert (source / "sub" / "b.txt").read_text() == "BETA"
    stage()
    verify_staged(product, context)


def test_a_change_while_a_file_is_hashed_is_no_version_of_it(stage, source, context, monkeypatch):
    real = transfer.digest_file

    def hash_late(path):
        digest = real(path)
        if os.path.samefile(path, source / "sub" / "b.txt"):
            edit_unseen(source / "sub" / "b.txt", "BETA")
        return digest

    monkeypatch.setattr(transfer, "digest_file", hash_late)
    with pytest.raises(ObjectChangedError, match=r"b\.txt"):
        stage()
    monkeypatch.setattr(transfer, "digest_file", real)
    product, _ = stage()
    assert contents(staged_path(context, product)) == contents(source)


def test_a_file_that_gets_another_name_while_it_is_hashed_is_hashed_again(stage, source, context, monkeypatch):
    real, others = transfer.digest_file, [source.parent / "other"]

    def hash_slowly(path):
        digest = real(path)
        if os.path.samefile(path, source / "sub" / "b.txt") and others:
            os.link(path, others.pop())
        return digest

    monkeypatch.setattr(transfer, "digest_file", hash_slowly)
    product, _ = stage()
    assert contents(staged_path(context, product)) == contents(source)


def test_a_change_while_a_file_is_hashed_is_none_of_the_version_that_was_listed(stage, source, monkeypatch):
    real, changes = transfer.digest_file, ["BETA and more"]

    def hash_late(path):
        digest = real(path)
        if os.path.samefile(path, source / "sub" / "b.txt") and changes:
            (source / "sub" / "b.txt").write_text(changes.pop())
        return digest

    monkeypatch.setattr(transfer, "digest_file", hash_late)
    with pytest.raises(ObjectChangedError, match=r"b\.txt"):
        stage()


def test_a_change_before_a_file_is_taken_into_the_pool_is_not_believed(stage, source, context, monkeypatch):
    """What is given for finished waits for a moment: its writer may come in between."""
    real, changes = transfer.fetch_objects, ["BETA"]

    def fetch_slowly(*arguments):
        for batch in real(*arguments):
            if batch and changes:
                edit_unseen(source / "sub" / "b.txt", changes.pop())
            yield batch

    monkeypatch.setattr("trainyard.tasks.staging.dataset.fetch_objects", fetch_slowly)
    with pytest.raises(Exception, match="staging again helps"):
        stage()
    product, _ = stage()
    assert contents(staged_path(context, product)) == contents(source)


def test_two_names_of_one_file(stage, source, context):
    os.link(source / "a.txt", source / "b.txt")
    product, _ = stage()
    assert contents(staged_path(context, product)) == contents(source)
    verify_staged(product, context)


def test_files_of_another_disk_are_copied(stage, source, context):
    other = Path("/dev/shm", f"trainyard-{os.getpid()}-{source.parent.name}")
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == source.stat().st_dev:
        pytest.skip("no second disk at /dev/shm")
    shutil.copytree(source, other)
    try:
        product, _ = stage(data_at(other).as_mount())
        assert contents(staged_path(context, product)) == contents(source)
        assert (other / "a.txt").stat().st_nlink == 1
    finally:
        shutil.rmtree(other)


def test_a_garbage_collection_counts_no_room_for_what_is_somebody_elses(stage, source, context):
    (source / "large").write_bytes(bytes(100_000))
    stage()
    inventory = take_home_inventory(context.home, frozenset(), frozenset())
    assert sum(blob.num_bytes for blob in inventory.blobs.values()) < 100_000
    (source / "large").unlink()
    inventory = take_home_inventory(context.home, frozenset(), frozenset())
    assert sum(blob.num_bytes for blob in inventory.blobs.values()) >= 100_000


def test_a_file_that_changed_since_it_was_listed_is_never_taken(source, tmp_path):
    location = Location(str(source / "a.txt"), links=True)
    info = location.find_object()
    (source / "new").write_text("alpha")
    os.replace(source / "new", source / "a.txt")
    with pytest.raises(ObjectChangedError):
        location.share_version(info, tmp_path / "target")
