import errno
import multiprocessing
import os
import shutil
import signal
import stat
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from trainyard.tasks.artifacts.datasets import dataset_directory, dataset_path
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import (
    ArtifactDamagedError,
    InvalidInputError,
    ObjectChangedError,
    StorageNotFoundError,
    UnsafeObjectKeyError,
)
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import directories
from trainyard.tasks.staging.dataset import stage_listings, stage_references, verify_staged
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.listing import list_reference, listing_components
from trainyard.tasks.staging.manifest import DatasetManifest
from trainyard.tasks.staging.probe import probe_reference


@pytest.fixture
def context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    for name, text in {"a.txt": "alpha", "sub/b.txt": "beta", "sub/deep/c d.txt": "", "same.txt": "alpha"}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def staged_path(context, product):
    [dataset] = product.datasets
    return dataset_path(context.home, dataset)


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


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_dataset_that_goes_while_it_is_looked_at_is_made_again(source, context, monkeypatch, in_doubt):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    if in_doubt:  # then its files are looked at one by one
        os.link(staged_path(context, product) / "a.txt", context.home / "another link")
    walk, looks = directories._walk, []

    def walk_slowly(directory):
        looks.append(directory)
        for n, found in enumerate(walk(directory)):
            if n == 1 and len(looks) == 1 + in_doubt:
                shutil.rmtree(context.home / "datasets")
            yield found

    monkeypatch.setattr(directories, "_walk", walk_slowly)
    assert stage_references([reference], context) == product
    assert len(looks) > 1 + in_doubt
    assert contents(staged_path(context, product)) == contents(source)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_dataset_that_goes_while_it_is_verified_is_damaged(source, context, monkeypatch, at):
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    os.link(staged_path(context, product) / "a.txt", context.home / "another link")  # its files are looked at
    walk, looks = directories._walk, []

    def walk_slowly(directory):
        looks.append(directory)
        for n, found in enumerate(walk(directory)):
            if n == 1 and len(looks) == at:
                shutil.rmtree(context.home / "datasets")
            yield found

    monkeypatch.setattr(directories, "_walk", walk_slowly)
    with pytest.raises(ArtifactDamagedError, match="not as it was staged"):
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


def damage_bytes(path):
    path.chmod(0o644)
    with path.open("r+") as stream:
        stream.write("X")


def damage_bytes_in_secret(path):
    before = path.stat()
    time.sleep(0.02)  # a filesystem's clock has ticks
    damage_bytes(path)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES = {
    "bytes": lambda d: damage_bytes(d / "a.txt"),
    "bytes, with size, mode and time as before": lambda d: damage_bytes_in_secret(d / "a.txt"),
    "truncated": lambda d: os.truncate(d / "a.txt", 1),
    "missing file": lambda d: (d / "a.txt").unlink(),
    "extra file": lambda d: (d / "extra.txt").write_text("x"),
    "link": lambda d: ((d / "a.txt").unlink(), (d / "a.txt").symlink_to("same.txt")),
    "link to a directory": lambda d: (d / "out").symlink_to("/"),
    "a file in its place": lambda d: (shutil.rmtree(d), d.write_text("x")),
    "directory gone": lambda d: d.parent.rename(d.parent.with_name("gone")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_moved_aside_and_healed(source, context, damage):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    damage(dataset_directory(context.home, product.datasets[0].sha256))
    with pytest.raises(ArtifactDamagedError, match="not as it was staged"):
        verify_staged(product, context)
    with pytest.raises(ArtifactDamagedError, match="not staged on this machine"):
        dataset_path(context.home, product.datasets[0])
    assert stage_references([reference], context) == product
    verify_staged(product, context)
    assert contents(staged_path(context, product)) == contents(source)


def test_a_directory_that_stands_is_not_gone_through_file_by_file(source, context, monkeypatch):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    looks, check_files = [], StagingIndex.check_files
    monkeypatch.setattr(StagingIndex, "check_files", lambda self, claims: looks.append(1) or check_files(self, claims))
    verify_staged(product, context)
    assert stage_references([reference], context) == product
    assert not looks
    os.link(staged_path(context, product) / "a.txt", context.home / "another link")  # as another dataset would make
    verify_staged(product, context)
    assert len(looks) == 1
    verify_staged(product, context)
    assert len(looks) == 1, "the state that it was found right in is known now"


def test_what_changes_while_files_are_looked_at_is_found_the_next_time(source, context, monkeypatch):
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    os.link(staged_path(context, product) / "a.txt", context.home / "another link")
    check_files = StagingIndex.check_files

    def check_and_damage(self, claims):
        yield from check_files(self, claims)
        damage_bytes(staged_path(context, product) / "a.txt")

    with monkeypatch.context() as patched:
        patched.setattr(StagingIndex, "check_files", check_and_damage)
        verify_staged(product, context)
    with pytest.raises(ArtifactDamagedError, match="not as it was staged"):
        verify_staged(product, context)


def test_where_there_are_no_hard_links_a_copy_is_hashed_before_it_is_believed(source, context, monkeypatch):
    def refuse(source, destination):
        raise OSError(errno.EPERM, "no hard links here")

    def copy_wrong(source, destination):
        with open(destination, "wb") as out:
            out.write(b"x" * os.path.getsize(source))

    monkeypatch.setattr(os, "link", refuse)
    reference = Datastore(url=str(source)).as_mount()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", copy_wrong)
        with pytest.raises(ArtifactDamagedError, match="staging again helps"):
            stage_references([reference], context)
    product = stage_references([reference], context)
    assert contents(staged_path(context, product)) == contents(source)
    verify_staged(product, context)


def test_a_damaged_directory_does_not_stand(source, context):
    [staged] = stage_references([Datastore(url=str(source)).as_mount()], context).datasets
    manifest = DatasetManifest.model_validate_json(context.store.read_bytes(staged.manifest))
    with closing(StagingIndex(context.home / "objects" / "index.sqlite")) as index:
        assert directories.stands(context.home, staged.sha256, index)
        damage_bytes(dataset_path(context.home, staged) / "a.txt")
        assert "a.txt" in directories.find_damage(context.home, manifest, index)
        assert not directories.stands(context.home, staged.sha256, index)


def test_staging_again_heals_without_being_told(source, context):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    damage_bytes(staged_path(context, product) / "a.txt")
    assert stage_references([reference], context) == product
    assert contents(staged_path(context, product)) == contents(source)


def test_an_unreadable_index_costs_time_and_nothing_else(source, context):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    (context.home / "objects" / "index.sqlite").write_bytes(b"not a database" * 100)
    verify_staged(product, context)
    assert last_progress(reference, context).transferred_bytes == 14


def test_a_proven_file_is_not_hashed_again_until_it_changes(tmp_path):
    known = StagingIndex(tmp_path / "index.sqlite")
    file = tmp_path / "file"
    file.write_bytes(b"alpha")
    claimed = "f" * 64  # not its digest: believed only because the file is as it was when that was remembered
    known.remember_file(file.lstat(), claimed)
    assert known.is_intact(file, 5, claimed)
    time.sleep(0.02)
    file.write_bytes(b"ALPHA")
    assert not known.is_intact(file, 5, claimed)


def test_nothing_there_is_an_error_of_its_own(tmp_path, context):
    with pytest.raises(StorageNotFoundError, match="no-such-directory"):
        stage_references([Datastore(url=str(tmp_path / "no-such-directory")).as_mount()], context)


@pytest.mark.parametrize("look", [probe_reference, list_reference])
def test_an_empty_directory_is_bad_input(tmp_path, look):
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="is empty"):
        look(Datastore(url=str(tmp_path / "empty")).as_mount())


def test_a_tree_without_end_is_refused(source):
    (source / "sub" / "loop").symlink_to(source)
    with pytest.raises(InvalidInputError, match="loop"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_a_pipe_is_refused_not_read(source):
    os.mkfifo(source / "pipe")
    with pytest.raises(InvalidInputError, match="pipe"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_a_name_that_is_no_text_is_refused(source):
    with open(os.fsencode(source) + b"/\xff.txt", "wb"):
        pass
    with pytest.raises(UnsafeObjectKeyError, match="Unicode"):
        list_reference(Datastore(url=str(source)).as_mount())


def test_probe_accepts_what_can_be_staged(source):
    probe_reference(Datastore(url=str(source)).as_mount())
    probe_reference(Datastore(url=source.as_uri()).path("a.txt"))


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


def hang_while_staging(url, context, started):
    def hang(progress):
        started.set()
        time.sleep(60)

    os.environ["TRAINYARD_PROGRESS_INTERVAL_S"] = "0.1"
    stage_references([Datastore(url=url).as_mount()], context, hang)


def test_a_killed_staging_leaves_nothing_behind_for_long(source, context):
    (source / "big.bin").write_bytes(os.urandom(1 << 20) * 100)
    spawn = multiprocessing.get_context("spawn")
    started = spawn.Event()
    child = spawn.Process(target=hang_while_staging, args=(str(source), context, started))
    child.start()
    assert started.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    partial = context.home / "objects" / "partial"
    assert list(partial.iterdir()) != []
    stage_references([Datastore(url=str(source)).path("a.txt")], context)
    assert list(partial.iterdir()) == []
