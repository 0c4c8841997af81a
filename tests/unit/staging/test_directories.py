"""A dataset's directory: believed where it stands as it was proven, else gone through, and made again."""

import errno
import os
import shutil
import time
from contextlib import closing

import pytest

from tests.unit.staging.staged import contents, damage_bytes, staged_path
from trainyard.tasks.artifacts.datasets import dataset_directory, dataset_path
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import directories
from trainyard.tasks.staging.dataset import stage_references, verify_staged
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.manifest import DatasetManifest


@pytest.fixture
def goes_during(context, monkeypatch):
    """Makes all datasets go in the middle of the nth walk through one; returns the walks so far, as they come."""

    def arrange(number):
        walk, walks = directories._walk, []

        def walk_and_lose(directory):
            walks.append(directory)
            for n, found in enumerate(walk(directory)):
                if n == 1 and len(walks) == number:
                    shutil.rmtree(context.home / "datasets")
                yield found

        monkeypatch.setattr(directories, "_walk", walk_and_lose)
        return walks

    return arrange


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_dataset_that_goes_while_it_is_looked_at_is_made_again(source, context, goes_during, in_doubt):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    if in_doubt:  # then its files are looked at one by one
        os.link(staged_path(context, product) / "a.txt", context.home / "another link")
    walks = goes_during(1 + in_doubt)
    assert stage_references([reference], context) == product
    assert len(walks) > 1 + in_doubt
    assert contents(staged_path(context, product)) == contents(source)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_dataset_that_goes_while_it_is_verified_is_damaged(source, context, goes_during, number):
    product = stage_references([Datastore(url=str(source)).as_mount()], context)
    os.link(staged_path(context, product) / "a.txt", context.home / "another link")  # its files are looked at
    walks = goes_during(number)
    with pytest.raises(ArtifactDamagedError, match=r"not (as it was staged|on this machine)"):
        verify_staged(product, context)
    assert len(walks) >= number


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
    with pytest.raises(ArtifactDamagedError, match=r"not (as it was staged|on this machine)"):
        verify_staged(product, context)
    with pytest.raises(ArtifactDamagedError, match="not staged on this machine"):
        dataset_path(context.home, product.datasets[0])
    assert stage_references([reference], context) == product
    verify_staged(product, context)
    assert contents(staged_path(context, product)) == contents(source)


def test_staging_again_heals_without_being_told(source, context):
    reference = Datastore(url=str(source)).as_mount()
    product = stage_references([reference], context)
    damage_bytes(staged_path(context, product) / "a.txt")
    assert stage_references([reference], context) == product
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
    with pytest.raises(ArtifactDamagedError, match=r"not (as it was staged|on this machine)"):
        verify_staged(product, context)


def test_a_damaged_directory_does_not_stand(source, context):
    [staged] = stage_references([Datastore(url=str(source)).as_mount()], context).datasets
    manifest = DatasetManifest.model_validate_json(context.store.read_bytes(staged.manifest))
    with closing(StagingIndex(context.home / "objects" / "index.sqlite")) as index:
        assert directories.stands(context.home, staged.sha256, index)
        damage_bytes(dataset_path(context.home, staged) / "a.txt")
        assert "a.txt" in directories.find_damage(context.home, manifest, index)
        assert not directories.stands(context.home, staged.sha256, index)


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
