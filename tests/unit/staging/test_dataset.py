"""Directories and files are staged as they are, once, and what did not change is not transferred again."""

import errno
import multiprocessing
import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from tests.unit.staging.staged import contents, staged_path
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ObjectChangedError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_listings, stage_references, verify_staged
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.listing import list_reference, listing_components
from trainyard.tasks.staging.progress import ProgressMeter


def last_progress(reference, context):
    reports = []
    stage_references([reference], context, reports.append)
    return reports[-1]


def test_a_directory_is_staged_as_it_is(source, context):
    product = stage_references([Datastore(url=source.as_uri()).as_mount()], context)
    assert contents(staged_path(context, product)) == contents(source)
    [dataset] = product.datasets
    assert (dataset.num_objects, dataset.num_bytes, dataset.single_object) == (4, 14, False)
    verify_staged(product, context)


def test_an_unchanged_listing_is_described_in_the_store_of_the_run(source, context, tmp_path):
    reference = Datastore(url=str(source)).as_mount()
    first = stage_references([reference], context)
    other = StageContext(store_url=str(tmp_path / "other store"), home=context.home)
    second = stage_references([reference], other)
    assert second.datasets[0].manifest.sha256 == first.datasets[0].manifest.sha256
    assert second.datasets[0].manifest.uri.startswith(other.store.url)
    assert stage_references([reference], context) == first


def test_a_manifest_that_the_store_lost_is_put_back(source, context):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    manifest = product.datasets[0].manifest
    Path(manifest.uri.removeprefix("file://")).unlink()
    assert stage_references([reference], context) == product
    context.store.verify(manifest)


def test_what_another_release_remembered_costs_time_and_nothing_else(source, context, monkeypatch):
    reference = Datastore(url=str(source)).as_mount()
    remember = StagingIndex.remember_product
    monkeypatch.setattr(StagingIndex, "remember_product", lambda self, s, listing, _: remember(self, s, listing, "{}"))
    product = stage_references([reference], context)
    assert stage_references([reference], context) == product


def test_an_object_and_a_prefix_of_the_same_versions_are_two_datasets(source, context):
    listing = list_reference(Datastore(url=str(source / "sub" / "deep")).as_mount())
    assert not stage_listings([listing], context).datasets[0].single_object
    assert stage_listings([replace(listing, single_object=True)], context).datasets[0].single_object


def test_a_file_is_staged_as_a_file(source, context):
    product = stage_references([Datastore(url=str(source)).path("sub/b.txt")], context)
    assert staged_path(context, product).read_text() == "beta"
    assert product.datasets[0].single_object


def test_no_references_are_no_datasets(context):
    assert stage_references([], context).datasets == ()
    assert listing_components([]) == {}
    verify_staged(stage_references([], context), context)
    assert not context.home.exists()


def test_any_fsspec_url_can_be_staged(context):
    memory = fsspec.filesystem("memory")
    memory.pipe({"/staged/x/a.txt": b"alpha", "/staged/x/b.txt": b""})
    product = stage_references([Datastore(url="memory://staged").path("x")], context)
    assert contents(staged_path(context, product)) == {"a.txt": b"alpha", "b.txt": b""}


def test_staged_files_are_read_only_and_not_the_users_own(source, context):
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    staged = staged_path(context, product) / "a.txt"
    assert stat.S_IMODE(staged.stat().st_mode) == 0o444
    with (source / "a.txt").open("r+") as stream:
        stream.write("ALPHA")
    assert staged.read_text() == "alpha"


def test_links_in_a_users_directory_are_followed(source, context, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.txt").write_text("delta")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "file.txt").symlink_to(tmp_path / "elsewhere" / "d.txt")
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    path = staged_path(context, product)
    assert (path / "folder" / "d.txt").read_text() == (path / "file.txt").read_text() == "delta"
    assert not (path / "file.txt").is_symlink()


def test_only_what_changed_is_transferred(source, context):
    reference = Datastore(url=str(source)).as_mount()
    first = last_progress(reference, context)
    assert (first.num_objects, first.num_reused, first.transferred_bytes) == (4, 0, 14)
    again = last_progress(reference, context)
    assert (again.num_objects, again.num_reused, again.transferred_bytes) == (4, 4, 0)
    (source / "a.txt").write_text("ALPHA!")
    changed = last_progress(reference, context)
    assert (changed.num_reused, changed.transferred_bytes) == (3, 6)
    assert "3 of them unchanged" in str(changed)


def test_an_older_dataset_stays_beside_a_newer_one(source, context):
    reference = Datastore(url=str(source)).as_mount()
    old = stage_references([reference], context)
    before = contents(staged_path(context, old))
    (source / "a.txt").write_text("other")
    new = stage_references([reference], context)
    assert old.datasets[0].sha256 != new.datasets[0].sha256
    verify_staged(old, context)
    assert contents(staged_path(context, old)) == before


def test_the_stages_key_names_source_kind_and_objects(source):
    reference = Datastore(url=str(source)).as_mount()
    components = listing_components([list_reference(reference)])
    assert components == listing_components([list_reference(reference)])
    (source / "a.txt").write_text("ALPHA")
    changed = listing_components([list_reference(reference)])
    assert {name for name in components if components[name] != changed[name]} == {"dataset 0: objects"}


def test_what_is_staged_is_what_was_listed_or_nothing(source, context):
    listing = list_reference(Datastore(url=str(source)).as_mount())
    time.sleep(0.02)
    (source / "a.txt").write_text("ALPHA")
    with pytest.raises(ObjectChangedError, match=r"a\.txt"):
        stage_listings([listing], context)
    assert not (context.home / "datasets").exists()


def test_an_unreadable_index_costs_time_and_nothing_else(source, context):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    (context.home / "objects" / "index.sqlite").write_bytes(b"not a database" * 100)
    verify_staged(product, context)
    assert last_progress(reference, context).transferred_bytes == 14


def stage_in_child(url, context):
    stage_references([Datastore(url=url).as_mount()], context)


def test_several_processes_may_stage_the_same_at_once(source, context):
    for n in range(100):
        (source / f"{n}.bin").write_bytes(os.urandom(2000))
    spawn = multiprocessing.get_context("spawn")  # forks of a process with threads are nobody's friends
    children = [spawn.Process(target=stage_in_child, args=(str(source), context)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    assert contents(staged_path(context, product)) == contents(source)
    assert not (context.home / "damaged").exists()


def assert_no_dataset_looks_whole(context):
    datasets = context.home / "datasets"
    assert not datasets.exists() or list(datasets.iterdir()) == []


def test_a_directory_whose_building_fails_is_not_there(source, context, monkeypatch):
    reference, link, linked = Datastore(url=str(source)).as_mount(), os.link, []

    def fail_midway(path, destination):
        if len(linked) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        linked.append(destination)
        link(path, destination)

    monkeypatch.setattr(os, "link", fail_midway)
    with pytest.raises(OSError, match="Too many"):
        stage_references([reference], context)
    assert len(linked) == 2
    assert_no_dataset_looks_whole(context)
    monkeypatch.setattr(os, "link", link)
    assert contents(staged_path(context, stage_references([reference], context))) == contents(source)


def hang_while_building(url, context, linked):
    link, count = os.link, []

    def hang_at_the_second(path, destination):
        link(path, destination)
        count.append(destination)
        if len(count) == 2:
            linked.set()
            time.sleep(60)

    os.link = hang_at_the_second
    stage_references([Datastore(url=url).as_mount()], context)


def kill_once_there(work, *arguments):
    """Let another process work until it sets the event that is its last argument, and kill it there."""
    spawn = multiprocessing.get_context("spawn")
    there = spawn.Event()
    child = spawn.Process(target=work, args=(*arguments, there))
    child.start()
    assert there.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)


def test_a_directory_whose_building_is_killed_is_not_there(source, context):
    kill_once_there(hang_while_building, str(source), context)
    assert_no_dataset_looks_whole(context)
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    assert contents(staged_path(context, product)) == contents(source)


def hang_while_staging(url, context, started):
    def hang(meter):
        started.set()
        time.sleep(60)

    ProgressMeter.tick = hang  # at the first batch: some disks are done with all of it before anything is reported
    stage_references([Datastore(url=url).as_mount()], context)


def test_a_killed_staging_leaves_nothing_behind_for_long(source, context):
    kill_once_there(hang_while_staging, str(source), context)
    partial = context.home / "objects" / "partial"
    assert list(partial.iterdir()) != []
    stage_references([Datastore(url=str(source)).path("a.txt")], context)
    assert list(partial.iterdir()) == []
