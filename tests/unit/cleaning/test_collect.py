import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from tests.unit.cleaning.aging import DAY, age, age_notes, collect, make, status
from tests.unit.registry.proofs import LINEAGE, proven
from trainyard.flows.cleaning import parse_limits, parse_size
from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import ANSWERS, StagedData
from trainyard.tasks.caching.runs import RunName, StageNote, write_note
from trainyard.tasks.caching.stage import Stage, run_stage
from trainyard.tasks.cleaning.plan import Limits
from trainyard.tasks.errors import ArtifactDamagedError, InvalidInputError
from trainyard.tasks.registry.load import load_model
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references, verify_staged

OLD, NEW = "0" * 32, "f" * 32
STAGE = Stage(name="stage", product_type=StagedData, packages=(), verify=verify_staged)


def test_what_was_not_used_for_long_goes_and_what_is_shared_stays(context, tmp_path):
    make(context, "old", tmp_path)
    age(context.home, 40)
    make(context, "new", tmp_path)
    collect(context, Limits(keep_s=30 * DAY))
    context.store.verify(make(context, "new", tmp_path).product.tree)
    assert status(context, "new", tmp_path) == "cached"
    assert status(context, "old", tmp_path) == "ran"


def test_a_dry_run_says_what_would_go_and_removes_nothing(context, tmp_path):
    make(context, "old", tmp_path)
    age(context.home, 40)
    before = sorted(context.home.rglob("*"))
    told = collect(context, dry_run=True)
    assert [item.kind for item in told.store.items] == ["cached result"]
    assert [path for path in sorted(context.home.rglob("*")) if "locks" not in path.parts] == [
        path for path in before if "locks" not in path.parts
    ]
    done = collect(context)
    assert (done.store.items, done.store.num_bytes) == (told.store.items, told.store.num_bytes)
    assert list((context.home / "store" / "objects").glob("*/*")) == []


def test_a_use_keeps_a_result(context, tmp_path):
    for name in ("a", "b"):
        make(context, name, tmp_path)
    age(context.home, 40)
    assert status(context, "a", tmp_path) == "cached"
    collect(context, Limits(keep_s=30 * DAY))
    assert [status(context, name, tmp_path) for name in ("a", "b")] == ["cached", "ran"]


def test_the_least_recently_used_goes_until_the_rest_fits(context, tmp_path):
    for days, name in ((3, "a"), (2, "b"), (1, "c")):
        make(context, name, tmp_path)
        record = Path(context.store_url) / "cache" / "export" / f"{make(context, name, tmp_path).cache_key}.json"
        os.utime(record, (time.time() - days * DAY,) * 2)
    age(context.home / "store" / "objects", 10)
    whole = collect(context, Limits(), dry_run=True)
    done = collect(context, Limits(max_bytes=whole.store.kept_bytes + whole.home.kept_bytes - 1))
    assert len(done.store.items) == 1
    assert [status(context, name, tmp_path) for name in ("c", "b", "a")] == ["cached", "cached", "ran"]


def test_what_a_registered_model_needs_is_never_removed(aged_place, tmp_path):
    context, age_all = aged_place
    bundle, validated = proven(context, tmp_path / "bundle")
    model = register_model("digits", bundle, validated, LINEAGE, context)
    other = make(context, "other", tmp_path).product.tree
    age_all()
    assert "cached result" in {item.kind for item in collect(context).store.items}
    with pytest.raises(ArtifactDamagedError, match="is missing"):
        context.store.verify(other)
    for proof in (bundle.bundle, validated.report, validated.page):
        context.store.verify(proof)
    verify_registered(model, context)
    assert (load_model("digits", "champion", context) / "model.onnx.data").read_bytes() == b"weights" * 1000


def test_what_a_run_answered_keeps_nothing_and_goes_with_time(context, tmp_path):
    for run, days in (("old", 40), ("new", 0)):
        product = make(context, run, tmp_path).product
        answer = context.store.root / f"{ANSWERS}{run}/train.json"
        answer.write_bytes(product.model_dump_json().encode())
        if days:
            age(context.home, days)
    collect(context, Limits(keep_s=30 * DAY))
    assert [path.parent.name for path in Path(context.store_url, ANSWERS).glob("*/*.json")] == ["new"]
    assert status(context, "new", tmp_path) == "cached"
    assert status(context, "old", tmp_path) == "ran"


def test_what_a_live_run_needs_is_never_removed(context, tmp_path):
    folder = RunName.now("run-1").folder
    tree = make(context, "input", tmp_path, run_folder=folder).product.tree
    other = make(context, "other", tmp_path).product.tree
    write_note(context.store, folder, StageNote(stage="train", status="unfinished", cache="on", key="k" * 64))
    age(context.home, 3)
    age_notes(context, 3)
    (context.home / "locks").mkdir(exist_ok=True)
    with FileLock(context.home / "locks" / f"train-{'k' * 64}.lock"):
        collect(context)
        context.store.verify(tree)
        assert status(context, "other", tmp_path) == "ran", other
    age(context.home, 3)
    collect(context)
    assert status(context, "input", tmp_path) == "ran"


def test_a_run_that_waits_between_two_attempts_is_alive_for_a_day(context, tmp_path):
    folder = RunName.now("run-1").folder
    make(context, "input", tmp_path, run_folder=folder)
    write_note(context.store, folder, StageNote(stage="train", status="unfinished", cache="on", key="k" * 64))
    age(context.home, 0.5)
    age_notes(context, 0.5)
    collect(context)
    assert status(context, "input", tmp_path) == "cached"


@pytest.fixture
def staged(context, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for n in range(3):
        (source / f"{n}.bin").write_bytes(os.urandom(1000))
    reference = Datastore(url=str(source)).as_mount()

    def use():
        return run_stage(STAGE, {}, lambda key: stage_references([reference], context), context)

    return use


def test_staged_data_goes_with_its_bytes(context, staged):
    staged()
    age(context.home, 40)
    done = collect(context)
    assert "dataset" in {item.kind for item in done.home.items}
    assert done.home.num_bytes >= 3000
    assert list((context.home / "datasets").iterdir()) == []
    assert list((context.home / "objects").glob("??/*")) == []


def test_data_that_is_in_use_stays(context, staged):
    product = staged().product
    age(context.home, 40)
    assert staged().status == "cached"
    collect(context)
    assert len(list(dataset_path(context.home, product.datasets[0]).iterdir())) == 3
    verify_staged(product, context)


def test_while_a_training_is_at_work_nothing_that_it_may_use_goes(context, staged):
    product = staged().product
    age(context.home, 3)
    (context.home / "environments" / OLD).mkdir(parents=True)
    (context.home / "work").mkdir()
    lock = context.home / "work" / "some-key.lock"
    lock.touch()
    age(context.home / "environments", 3)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl,sys,time;f=open({str(lock)!r});fcntl.flock(f,2);print(1,flush=True);time.sleep(100)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        os.utime(lock, (time.time() - 3 * DAY,) * 2)
        collect(context)
        assert (context.home / "environments" / OLD).exists()
        assert dataset_path(context.home, product.datasets[0]).exists()
    finally:
        holder.kill()
        holder.wait()
    collect(context)
    assert not (context.home / "environments" / OLD).exists()


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("environments", OLD, f"conda-{NEW}"),
        ("environments", f"conda-{OLD}", NEW),
        ("runs", "20261101-120000-00ff00", "20261130-120000-00ff00"),
        ("checkpoints", OLD, NEW),
        ("work", OLD, NEW),
        ("models", OLD, NEW),
        ("models", f".{OLD}.ab_01xyz", f".{NEW}.ab_01xyz"),
        ("sources", OLD, NEW),
        ("damaged", "data-00ff00ff", "data-ff00ff00"),
    ],
)
def test_every_place_of_the_home_directory_is_cleaned(context, place, old, new):
    for name in (old, new):
        (context.home / place / name).mkdir(parents=True)
        (context.home / place / name / "file").write_text(name)
        if name == old:
            age(context.home, 40)
    collect(context, Limits(keep_s=30 * DAY))
    assert [path.name for path in (context.home / place).iterdir()] == [new]


def test_old_copies_of_reports_go_and_are_counted(context):
    (context.home / "reports").mkdir(parents=True)
    old, new = (context.home / "reports" / f"validation-{digit * 16}.html" for digit in "0f")
    for path in (old, new):
        path.write_text("x" * 1000)
    os.utime(old, (time.time() - 40 * DAY,) * 2)
    told = collect(context, Limits(keep_s=30 * DAY), dry_run=True)
    assert [item.id for item in told.home.items] == [str(old)]
    assert (told.home.num_bytes, told.home.kept_bytes) == (1000, 1000)
    collect(context, Limits(keep_s=30 * DAY))
    assert (old.exists(), new.exists()) == (False, True)


def test_the_files_of_prefects_server_are_told_and_left_alone(context):
    (context.home / "prefect").mkdir(parents=True)
    database = context.home / "prefect" / "prefect.db"
    database.write_bytes(b"x" * 5000)
    age(context.home / "prefect", 400)
    found = collect(context)
    assert (found.server_bytes, found.home.num_bytes, database.exists()) == (5000, 0, True)


def test_files_of_others_are_left_alone(context, tmp_path):
    (context.home / "notes").mkdir(parents=True)
    (context.home / "notes" / "mine.txt").write_text("mine")
    (context.home / "runs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs.txt").write_text("theirs")
    (context.home / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    age(tmp_path / "elsewhere", 400)
    age(context.home, 400)
    collect(context)
    assert (context.home / "notes" / "mine.txt").exists()
    assert (context.home / "runs" / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "theirs.txt").read_text() == "theirs"


def test_two_collections_do_not_run_at_once(context):
    (context.home / "locks").mkdir(parents=True)
    with FileLock(context.home / "locks" / "gc.lock"), pytest.raises(InvalidInputError, match="Another"):
        collect(context)


def test_runs_beside_a_collection_lose_nothing(context, tmp_path):
    """Old results are used and removed at the same time: each run gets the right one, whole, or makes it again."""
    trees = [make(context, str(n), tmp_path).product.tree for n in range(6)]
    errors, rounds, stop = [], Counter(), threading.Event()

    def work(n):
        while not stop.is_set():
            try:
                product = make(context, str(n), tmp_path).product
                content = context.store.read_entry(product.tree, "own.txt")
                assert content == (str(n) * 100).encode()
            except ArtifactDamagedError:  # it went in this very moment: the next round makes it again
                continue
            except BaseException as error:
                errors.append(error)
                return
            rounds[n] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    num_removed, until = 0, time.monotonic() + 300
    while (num_removed < 10 or not all(rounds[n] for n in range(3))) and not errors and time.monotonic() < until:
        if num_removed < 10:  # afterwards whoever was overtaken again and again comes to its rounds
            make_old(context)  # those in use are touched again at once
        num_removed += len(collect(context).store.blobs)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert num_removed >= 10 and all(rounds[n] for n in range(3)), (num_removed, rounds)
    for unused in trees[3:]:
        with pytest.raises(ArtifactDamagedError, match="is missing"):
            context.store.verify(unused)


def make_old(context):
    """Records and objects, but for those that are only being written; some go, or come, meanwhile."""
    for pattern in ("cache/export/[!.]*", "objects/*/[!.]*"):
        for path in Path(context.store_url).glob(pattern):
            with suppress(FileNotFoundError):
                os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("50GB", 50 * 10**9), ("1.5TiB", 3 * 2**39), ("500 mb", 5 * 10**8), ("17", 17), ("2K", 2000)],
)
def test_sizes_are_read_as_people_write_them(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "many", "5XB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInputError, match="not a size"):
        parse_size(text)


def test_nothing_asked_for_is_refused():
    with pytest.raises(InvalidInputError, match="--max-size 50GB"):
        parse_limits(None, None)
