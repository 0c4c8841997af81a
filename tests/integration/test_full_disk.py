"""A disk with no room: said before anything is transferred, and survived when it fills up meanwhile.

A disk that cannot be written to is named, and no other one in its place.
"""

import shutil
import subprocess
from contextlib import suppress

import pytest

from tests.integration.disks import mounted_image
from tests.integration.fault_server import made_up, run_fault_server
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import DiskFullError, PermanentError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references

MEBIBYTE = 1 << 20


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fault-server-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fault-server-secret")
    with run_fault_server() as server:
        yield server


def reference(server):
    return Datastore(url="s3://data", endpoint_url=server.endpoint_url).as_mount()


def test_data_that_does_not_fit_is_refused_before_a_byte_is_read(server, small_disk, tmp_path):
    server.buckets["data"] = {f"{n}.bin": made_up(10 * MEBIBYTE, n) for n in range(5)}
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    with pytest.raises(DiskFullError, match=r"0\.052 GB are to be transferred.*trainyard gc") as caught:
        stage_references([reference(server)], context)
    assert (caught.value.needed_bytes, server.reads) == (50 * MEBIBYTE, [])


def test_datasets_that_fit_only_alone_are_refused_before_a_byte_of_either_is_read(server, small_disk, tmp_path):
    for name in ("data", "more"):
        server.buckets[name] = {"a.bin": made_up(15 * MEBIBYTE, 1)}
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    both = [Datastore(url=f"s3://{name}", endpoint_url=server.endpoint_url).as_mount() for name in ("data", "more")]
    with pytest.raises(DiskFullError, match=r"0\.031 GB are to be transferred, and") as caught:
        stage_references(both, context)
    assert (caught.value.needed_bytes, server.reads) == (30 * MEBIBYTE, [])
    assert len(stage_references(both[:1], context).datasets) == 1  # alone it fits
    server.buckets["more"] = {"a.bin": made_up(1000, 2)}
    assert len(stage_references(both, context).datasets) == 2  # what is here already needs no room


@pytest.mark.parametrize("num_datasets", [1, 2])
def test_local_data_needs_room_unless_it_is_linked(small_disk, tmp_path, num_datasets):
    source = small_disk / "data"
    source.mkdir()
    for n in range(2):
        (source / f"{n}.bin").write_bytes(made_up(14 * MEBIBYTE, n).read(0, 14 * MEBIBYTE))
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")

    def stage(link_mode):
        data = Datastore(url=str(source), link_mode=link_mode)
        whole, parts = [data.as_mount()], [data.path(f"{n}.bin") for n in range(2)]
        return stage_references(whole if num_datasets == 1 else parts, context)

    with pytest.raises(DiskFullError):
        stage("reflink")
    assert sum(dataset.num_bytes for dataset in stage("hardlink").datasets) == 28 * MEBIBYTE


def test_a_copy_for_the_run_needs_room_too(server, small_disk, tmp_path):
    server.buckets["data"] = {"a.bin": made_up(15 * MEBIBYTE, 1)}
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    with pytest.raises(DiskFullError, match=r"0\.016 GB copied for the run \(as_download\)"):
        stage_references([reference(server).as_download()], context)
    assert server.reads == []
    assert len(stage_references([reference(server)], context).datasets) == 1


def test_data_that_stands_needs_room_for_a_copy_alone(server, small_disk, tmp_path):
    server.buckets["data"] = {"a.bin": made_up(9 * MEBIBYTE, 1)}
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    stage_references([reference(server)], context)
    server.reads.clear()
    for path in (context.home / "objects").glob("??/*"):
        path.unlink()
    assert len(stage_references([reference(server).as_download()], context).datasets) == 1
    assert server.reads == []


def test_a_disk_that_fills_up_meanwhile_is_survived_and_staging_goes_on(server, small_disk, tmp_path):
    server.buckets["data"] = {f"{n:02}.bin": made_up(MEBIBYTE, n) for n in range(20)}
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    hog = small_disk / "hog"

    def fill(key, nth):
        if not hog.exists():
            with hog.open("wb") as out:
                out.write(bytes(37 * MEBIBYTE))

    server.on_read = fill
    with pytest.raises(DiskFullError, match="is full"):
        stage_references([reference(server)], context)
    assert not (context.home / "datasets").exists()
    hog.unlink()
    server.on_read = lambda key, nth: None
    [dataset] = stage_references([reference(server)], context).datasets
    for name, expected in server.buckets["data"].items():
        assert (dataset_path(context.home, dataset) / name).read_bytes() == expected.read(0, MEBIBYTE)


@pytest.fixture
def ext4(tmp_path):
    """A disk of 64 MiB with ext4, as it is made by default: some 16,000 inodes, blocks of 4 KiB."""
    with mounted_image(tmp_path / "image", tmp_path / "ext4", 64, "mkfs.ext4", "-q", "-F", "-b", "4096") as disk:
        yield disk


@pytest.fixture
def few_inodes(tmp_path):
    """A disk with room for bytes, and for less than a thousand files."""
    with mounted_image(tmp_path / "image", tmp_path / "few", 200, "mkfs.ext4", "-q", "-F", "-N", "900") as disk:
        yield disk


def small_objects(server, num_objects, num_datasets):
    """So many objects in all, shared out among datasets; gives their references."""
    for name in ("data", "more")[:num_datasets]:
        server.put(name, {f"{n:05}": b"x" * 200 for n in range(num_objects // num_datasets)})
    return [reference(server), Datastore(url="s3://more", endpoint_url=server.endpoint_url).as_mount()][:num_datasets]


@pytest.mark.parametrize("num_datasets", [1, 2])
def test_small_objects_need_a_block_each(server, ext4, tmp_path, num_datasets):
    references = small_objects(server, 15_000, num_datasets)
    context = StageContext(store_url=str(tmp_path / "store"), home=ext4 / "home")
    with pytest.raises(DiskFullError, match=r"0\.003 GB \(which take 0\.061 GB\) are to be transferred") as caught:
        stage_references(references, context)
    assert (caught.value.needed_bytes, server.reads) == (15_000 * 4096, [])


@pytest.mark.parametrize("num_datasets", [1, 2])
def test_more_files_than_inodes_are_refused_before_a_byte_is_read(server, few_inodes, tmp_path, num_datasets):
    references = small_objects(server, 1_000, num_datasets)
    context = StageContext(store_url=str(tmp_path / "store"), home=few_inodes / "home")
    with pytest.raises(DiskFullError, match=r"1,000 files are to be made, and it has \d+ inodes left.*trainyard gc"):
        stage_references(references, context)
    assert server.reads == []
    server.buckets = {"data": {}}
    server.put("data", {f"{n:05}": b"%d" % n for n in range(300)})
    assert stage_references([reference(server)], context).datasets[0].num_objects == 300


def test_inodes_that_are_used_up_meanwhile_are_named(server, few_inodes, tmp_path):
    server.put("data", {f"{n:05}": b"%d" % n for n in range(300)})
    context = StageContext(store_url=str(tmp_path / "store"), home=few_inodes / "home")
    others = few_inodes / "others"

    def use_up(key, nth):
        if not others.exists():
            others.mkdir()
            with suppress(OSError):
                for n in range(1_000):
                    (others / str(n)).touch()

    server.on_read = use_up
    with pytest.raises(DiskFullError, match=r"has no inodes left.*\(\d+\.\d MB are left\)"):
        stage_references([reference(server)], context)
    assert not (context.home / "datasets").exists()
    shutil.rmtree(others)
    server.on_read = lambda key, nth: None
    assert stage_references([reference(server)], context).datasets[0].num_objects == 300


def make_read_only(mount):
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)


def test_a_home_that_cannot_be_written_to_is_named(server, small_disk, tmp_path):
    server.put("data", {"a.txt": b"alpha"})
    make_read_only(small_disk)
    context = StageContext(store_url=str(tmp_path / "store"), home=small_disk / "home")
    message = r"The disk of .*/disk/home cannot be written to \(Read-only file system\).*TRAINYARD_HOME"
    with pytest.raises(PermanentError, match=message):
        stage_references([reference(server)], context)


def test_a_store_that_cannot_be_written_to_is_not_blamed_on_the_home(server, small_disk, tmp_path):
    server.put("data", {"a.txt": b"alpha"})
    context = StageContext(store_url=str(small_disk / "store"), home=tmp_path / "home")
    make_read_only(small_disk)
    with pytest.raises(OSError, match=r"Read-only file system: '.*/disk/store"):
        stage_references([reference(server)], context)
