"""A checkpoint whose writing was interrupted is never what a script finds; one that is whole always is."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainyard import Datastore, PyTorch
from trainyard.tasks.artifacts.datasets import dataset_directory
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.runtime.run import Run
from trainyard.tasks.training.checkpoints import is_broken, seed_checkpoints, set_aside_broken
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.train import _prepare_checkpoints


def as_torch(**options):
    stream = io.BytesIO()
    torch.save({"model": {"weight": torch.arange(1000.0)}, "epoch": 3}, stream, **options)
    return stream.getvalue()


def as_npz():
    stream = io.BytesIO()
    np.savez(stream, weight=np.arange(1000.0))
    return stream.getvalue()


def as_safetensors():
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {"epoch": "3"}, "weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


WHOLE = {"a.pt": as_torch(), "a.npz": as_npz(), "a.safetensors": as_safetensors(), "without-suffix": as_torch()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_checkpoint_is_not_broken(folder, name):
    (folder / name).write_bytes(WHOLE[name])
    assert not is_broken(folder / name)


@given(st.sampled_from([name for name in WHOLE if "." in name]), st.floats(0, 1, exclude_max=True))
def test_one_that_was_cut_short_is(folder, name, fraction):
    (folder / name).write_bytes(WHOLE[name][: int(fraction * len(WHOLE[name]))])
    assert is_broken(folder / name)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_one_of_which_next_to_nothing_was_written_is(folder, length):
    (folder / "a.pt").write_bytes(WHOLE["a.pt"][:length])
    assert is_broken(folder / "a.pt")


@given(st.integers(4, len(WHOLE["without-suffix"]) - 1))
def test_an_archive_is_known_whatever_its_name(folder, length):
    (folder / "step-300").write_bytes(WHOLE["without-suffix"][:length])
    assert is_broken(folder / "step-300")


@given(st.sampled_from([name for name in WHOLE if "." in name]))
def test_one_that_the_machine_left_as_zeros_is(folder, name):
    (folder / name).write_bytes(bytes(len(WHOLE[name])))
    assert is_broken(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done", b""),  # an empty marker is no checkpoint
        ("state.json", b'{"epoch": 3'),
        ("old.pt", as_torch(_use_new_zipfile_serialization=False)),
        ("__0_0.distcp", as_torch() + b"raw bytes that another writer has put behind"),
        ("log.txt", b"PK is a name, too"),
    ],
    ids=["empty", "json", "old-torch", "distributed", "text"],  # bytes that differ in each process are no name
)
def test_what_cannot_be_judged_is_left(folder, name, content):
    (folder / name).write_bytes(content)
    assert not is_broken(folder / name)


def test_an_archive_without_checksums_is_whole(folder):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        (folder / "fast.pt").write_bytes(as_torch())
    finally:
        torch.serialization.set_crc32_options(before)
    assert not is_broken(folder / "fast.pt")


def test_broken_files_are_moved_out_of_sight_and_named(tmp_path, caplog):
    checkpoints, aside = tmp_path / "checkpoints", tmp_path / "run" / "broken"
    (checkpoints / "deep").mkdir(parents=True)
    (checkpoints / "epoch-1.pt").write_bytes(as_torch())
    (checkpoints / "epoch-2.pt").write_bytes(as_torch()[:700])
    (checkpoints / "deep" / "epoch-2.pt").write_bytes(b"")
    (checkpoints / "last.pt").symlink_to("epoch-2.pt")
    (checkpoints / ".partial" / "77").mkdir(parents=True)
    (checkpoints / ".partial" / "77" / "epoch-3.pt").write_bytes(b"half")
    set_aside_broken(checkpoints, aside)
    assert sorted(path.name for path in checkpoints.rglob("*")) == ["epoch-1.pt"]
    assert (aside / "epoch-2.pt").read_bytes() == as_torch()[:700]
    assert (aside / "deep" / "epoch-2.pt").exists()
    assert "'epoch-2.pt'" in caplog.text and str(aside) in caplog.text
    assert set_aside_broken(checkpoints, aside) == []


def test_checkpoints_to_resume_from_are_copies(tmp_path):
    source, checkpoints = tmp_path / "source", tmp_path / "checkpoints"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "epoch-1.pt").write_bytes(b"whole")
    (source / "deep" / "epoch-1.pt").chmod(0o444)
    checkpoints.mkdir()
    assert seed_checkpoints(source, checkpoints)
    (checkpoints / "deep" / "epoch-1.pt").write_bytes(b"overwritten")
    assert (source / "deep" / "epoch-1.pt").read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "checkpoints"}


def test_the_newest_of_the_copies_is_the_last_by_name(tmp_path):
    source, checkpoints = tmp_path / "source", tmp_path / "checkpoints"
    names = ["best.pt", "epoch-2.pt", "epoch-9/model.pt", "epoch-10/model.pt", "epoch-10/optimizer.pt"]
    for name in reversed(names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"whole")
    checkpoints.mkdir()
    assert seed_checkpoints(source, checkpoints)
    assert sorted(names, key=lambda name: (checkpoints / name).stat().st_mtime) == names
    assert max(checkpoints.iterdir(), key=lambda path: path.stat().st_mtime).name == "epoch-10"
    assert (checkpoints / "epoch-10").stat().st_mtime <= time.time()


def test_a_single_file_is_resumed_from_under_its_name(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"whole")
    (tmp_path / "checkpoints").mkdir()
    assert seed_checkpoints(tmp_path / "best.pt", tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints" / "best.pt").read_bytes() == b"whole"


def test_a_training_with_checkpoints_of_its_own_goes_on_from_those(tmp_path):
    source, checkpoints = tmp_path / "source", tmp_path / "checkpoints"
    for folder in (source, checkpoints):
        folder.mkdir()
        (folder / "last.pt").write_bytes(folder.name.encode())
    assert not seed_checkpoints(source, checkpoints)
    assert (checkpoints / "last.pt").read_bytes() == b"checkpoints"


def test_a_broken_file_to_resume_from_is_set_aside(tmp_path, caplog):
    home = tmp_path / "home"
    dataset = StagedDataset(
        uri=str(tmp_path / "earlier"),
        sha256="a" * 64,
        single_object=False,
        num_objects=2,
        num_bytes=1,
        manifest=ArtifactRef(uri="memory://x", sha256="b" * 64, num_bytes=0),
    )
    staged = dataset_directory(home, dataset.sha256)
    staged.mkdir(parents=True)
    (staged / "epoch-1.pt").write_bytes(as_torch())
    (staged / "epoch-2.pt").write_bytes(as_torch()[:700])
    estimator = PyTorch(
        source_directory=".", entry_script="train.py", resume_from=Datastore(url=str(tmp_path / "earlier"))
    )
    run = RunDirectory.create(home, StageKey("train", {}))
    context = StageContext(store_url=str(tmp_path / "store"), home=home)
    assert _prepare_checkpoints(run, estimator, StagedData(datasets=(dataset,)), context)
    assert [path.name for path in run.checkpoints.iterdir()] == ["epoch-1.pt"]
    assert "'epoch-2.pt'" in caplog.text
    assert (staged / "epoch-2.pt").exists()


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINYARD_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    return Run._from_environment({})


def test_a_checkpoint_appears_when_it_is_whole(run, tmp_path):
    with run.checkpoint("deep/epoch-1.npz") as path:
        np.savez(path, weight=np.arange(3))
        assert not list((tmp_path / "checkpoints").glob("*.npz"))
        assert not (tmp_path / "checkpoints" / "deep").exists()
    assert [p.name for p in (tmp_path / "checkpoints" / "deep").iterdir()] == ["epoch-1.npz"]


def test_a_checkpoint_that_fails_leaves_the_one_before(run, tmp_path):
    for content, fails in ((b"first", False), (b"second", True)):
        try:
            with run.checkpoint("last.pt") as path:
                path.write_bytes(content)
                if fails:
                    raise OSError("the disk is full")
        except OSError:
            assert fails
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == b"first"
    assert not list((tmp_path / "checkpoints" / ".partial").iterdir())


def test_checkpoints_may_be_written_inside_of_each_other(run, tmp_path):
    with run.checkpoint("model.pt") as outer:
        with run.checkpoint("optimizer.pt") as inner:
            inner.write_bytes(b"optimizer")
        outer.write_bytes(b"model")
    written = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("*.pt")}
    assert written == {"model.pt": b"model", "optimizer.pt": b"optimizer"}


def test_threads_may_write_checkpoints_of_one_name_at_once(run, tmp_path):
    both_have_begun = threading.Barrier(2, timeout=60)

    def write(content):
        with run.checkpoint("last.pt") as path:
            path.write_bytes(content[:1])
            both_have_begun.wait()
            path.write_bytes(content)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, [b"first", b"second"]))
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() in (b"first", b"second")
    assert not list((tmp_path / "checkpoints" / ".partial").iterdir())


@pytest.mark.parametrize("name", ["../last.pt", "/last.pt", ""])
def test_a_checkpoint_stays_in_its_directory(run, name):
    with pytest.raises(ValueError, match="relative path"), run.checkpoint(name) as path:
        path.write_bytes(b"")


def test_a_checkpoint_that_was_not_written_is_an_error(run):
    with pytest.raises(FileNotFoundError, match="nothing was written"), run.checkpoint("last.pt"):
        pass


WRITER = """
from trainyard import Run
run = Run.get_context()
with run.checkpoint("last.pt") as path:
    path.write_bytes(b"first")
with run.checkpoint("last.pt") as path, path.open("wb") as stream:
    while True:
        stream.write(b"second" * 1000)
        print("writing", flush=True)
"""


def test_a_kill_in_the_middle_leaves_the_checkpoint_before(tmp_path):
    env = {**os.environ, "TRAINYARD_CHECKPOINT_DIR": str(tmp_path)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER], env=env, stdout=subprocess.PIPE)
    writer.stdout.readline()
    time.sleep(0.05)
    writer.kill()
    writer.communicate()
    assert (tmp_path / "last.pt").read_bytes() == b"first"
    assert [path.name for path in tmp_path.glob("*.pt")] == ["last.pt"]
