"""What a collection leaves alone, and where it may be asked to work."""

import logging
import os
import subprocess
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.unit.cleaning.aging import DAY, EVERYTHING, age, collect, make, status
from tests.unit.registry.proofs import LINEAGE, proven
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.known_stores import known_stores
from trainyard.tasks.caching.runs import RunName, StageNote, write_note
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.cleaning.collect import collect_garbage
from trainyard.tasks.cleaning.plan import Limits
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.registry.register import register_model

KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize("place", ["", "/models", "/objects/store", "/cache"])
def test_a_store_among_the_files_of_the_home_is_refused(tmp_path, place):
    home = tmp_path / "home"
    store = ArtifactStore(f"{home}{place}")
    with pytest.raises(InvalidInputError, match="lies in TRAINYARD_HOME"):
        collect_garbage(store, home, EVERYTHING, dry_run=True)
    with pytest.raises(InvalidInputError, match="lies in TRAINYARD_HOME"):
        StageContext(store_url=f"file://{home}{place}", home=home)


def test_a_home_among_the_files_of_a_store_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="in a folder of it"):
        StageContext(store_url=str(tmp_path), home=tmp_path / "cache" / "home")


@pytest.mark.parametrize("store", ["home/store", "home/store/team", "elsewhere", "home2", ""])
def test_other_stores_are_taken(tmp_path, store):
    assert StageContext(store_url=str(tmp_path / store), home=tmp_path / "home")


def test_files_that_trainyard_did_not_make_stay(context, tmp_path):
    make(context, "old", tmp_path)
    home, store = context.home, Path(context.store_url)
    run = RunName.now("run-1").folder
    theirs = [
        store / "cache" / "notes.txt",
        store / "cache" / "export" / "notes.json",
        store / "objects" / "README.md",
        store / "objects" / "ab" / "README.md",
        store / "runs" / "my-notes" / "train.json",
        store / "runs" / run / "notes.txt",
        store / "answers" / "notes.txt",
        home / "models" / "my-own-model" / "model.onnx",
        home / "runs" / "mynotes" / "notes.txt",
        home / "checkpoints" / "best" / "model.pt",
        home / "reports" / "mine.html",
        home / "damaged" / "notes.txt",
        home / "objects" / "ab" / "README.md",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(KEY)
    age(home, 400)
    assert collect(context).store.num_bytes
    assert [path for path in theirs if not path.exists()] == []


def test_damaged_files_go_too(context):
    damaged = context.home / "damaged"
    damaged.mkdir(parents=True)
    for name in ("0123456789abcdef-00ff00ff", "0123456789abcdef-ff00ff00"):
        (damaged / name).write_bytes(b"x" * 1000)
    os.utime(damaged / "0123456789abcdef-00ff00ff", (1, 1))
    assert collect(context, Limits(keep_s=30 * DAY)).home.num_bytes == 1000
    assert [path.name for path in damaged.iterdir()] == ["0123456789abcdef-ff00ff00"]


def test_what_a_staging_that_was_killed_left_goes(context):
    partial = context.home / "objects" / "partial"
    for name in ("dead", "live"):
        (partial / name).mkdir(parents=True)
        (partial / name / "file").write_text(name)
        (partial / f"{name}.lock").touch()
    with FileLock(partial / "live.lock"):
        collect(context, dry_run=True)
        assert (partial / "dead").exists()
        collect(context)
        assert sorted(path.name for path in partial.iterdir()) == ["live", "live.lock"]


def test_the_bytes_of_the_registry_count(context, tmp_path):
    bundle, validated = proven(context, tmp_path / "bundle")
    register_model("digits", bundle, validated, LINEAGE, context)
    files = [path for path in (Path(context.store_url) / "models").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    age(context.home, 400)
    before = collect(context, dry_run=True).store
    extra = Path(context.store_url) / "models" / "digits" / "1" / "more.bin"
    extra.write_bytes(b"x" * 10_000)
    os.utime(extra, (1, 1))
    found = collect(context).store
    assert found.needed_bytes - before.needed_bytes == found.kept_bytes - before.kept_bytes == 10_000
    assert found.needed_bytes >= size + 10_000
    assert all(path.exists() for path in (*files, extra))


def live_run(store_url, home):
    """A run of this home that trains, as its notes say, with checkpoints and a dataset."""
    context = StageContext(store_url=store_url, home=home)
    components = {"input:argument[--data]": "d" * 64}
    note = StageNote(stage="train", status="unfinished", cache="on", key=KEY, components=components)
    write_note(context.store, RunName.now("run-1").folder, note)
    needed = [home / "checkpoints" / KEY[:32] / "1.pt", home / "datasets" / ("d" * 64) / "data" / "1.bin"]
    for path in needed:
        path.parent.mkdir(parents=True)
        path.write_text("needed")
    return needed


def test_what_live_runs_with_another_store_have_at_home_stays(context, tmp_path):
    make(context.model_copy(update={"store_url": str(tmp_path / "theirs")}), "any", tmp_path)
    needed = live_run(str(tmp_path / "theirs"), context.home)
    age(context.home, 40)
    collect(context)
    assert all(path.exists() for path in needed)
    for path in (tmp_path / "theirs" / "runs").glob("*/*.json"):
        path.unlink()
    collect(context)
    assert not any(path.exists() for path in needed)


def test_what_live_runs_with_the_homes_own_store_have_there_stays(context, tmp_path):
    needed = live_run(str(context.home / "store"), context.home)
    age(context.home, 40)
    collect(context.model_copy(update={"store_url": str(tmp_path / "other")}))
    assert all(path.exists() for path in needed)


def test_a_store_that_cannot_be_read_is_told_and_keeps_nobody_from_cleaning(context, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (context.home / "stores").mkdir(parents=True)
    (context.home / "stores" / "0.url").write_text("nonsense://bucket")
    make(context, "old", tmp_path)
    age(context.home, 40)
    collect(context)
    assert "nonsense://bucket" in caplog.text
    assert status(context, "old", tmp_path) == "ran"


def test_each_store_is_remembered_once(context, tmp_path):
    for _ in range(2):
        for name in ("a", "b"):
            make(context.model_copy(update={"store_url": str(tmp_path / name)}), "any", tmp_path)
    assert sorted(known_stores(context.home)) == sorted(f"file://{tmp_path / name}" for name in ("a", "b"))


@pytest.fixture
def s3_context(tmp_path, s3_server, monkeypatch):
    for name, value in {**s3_server.environment(), "AWS_ENDPOINT_URL": s3_server.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    bucket = f"leases-{time.time_ns()}"
    return StageContext(store_url=f"s3://{bucket}", home=tmp_path / "home"), s3_server.create_bucket(bucket)


@pytest.mark.parametrize(("days", "stays"), [(0.5, True), (3, False)])
def test_a_dead_lease_protects_for_a_day_and_goes(s3_context, tmp_path, days, stays):
    context, folder = s3_context
    run = RunName.now("run-1").folder
    make(context, "input", tmp_path, run_folder=run)
    write_note(context.store, run, StageNote(stage="train", status="unfinished", cache="on", key=KEY))
    lease = context.store.root / f"leases/train-{KEY}.json"
    lease.write_bytes(b'{"holder": "x", "host": "gone", "process": 1, "ttl_s": 60}')
    for path in (folder / "runs").glob("*/*.json"):
        path.write_text(path.read_text().replace(time.strftime("%Y-%m-"), "2020-01-"))
    age(folder, days)
    collect(context)
    assert lease.exists() is stays
    assert status(context, "input", tmp_path) == ("cached" if stays else "ran")


def test_a_place_of_the_home_may_be_on_another_disk(context, small_disk):
    for place in ("checkpoints", "runs"):
        (context.home / place).mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(small_disk), str(context.home / "checkpoints")], check=True)
    try:
        old = context.home / "checkpoints" / KEY[:32]
        old.mkdir()
        (old / "1.pt").write_bytes(b"x" * 1000)
        age(old, 40)
        assert collect(context, Limits(keep_s=30 * DAY)).home.num_bytes == 1000
        assert list((context.home / "checkpoints").iterdir()) == []
    finally:
        subprocess.run(["umount", str(context.home / "checkpoints")], check=True)
