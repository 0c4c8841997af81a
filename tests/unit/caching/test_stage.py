"""The stage cache with a small stage of our own: what hits, what misses, and what is made again."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from trainyard.flows.answers import keep_product
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey, code_components, code_files
from trainyard.tasks.caching.lease import is_leased
from trainyard.tasks.caching.runs import RunName
from trainyard.tasks.caching.stage import Stage, StageContext, look_up, run_stage
from trainyard.tasks.errors import (
    ArtifactDamagedError,
    StageTimeoutError,
    StorageNotFoundError,
    StorageUnavailableError,
    TransientError,
)
from trainyard.tasks.specs.spec import Spec


class Text(Spec):
    artifact: ArtifactRef


STAGE = Stage(name="export", product_type=Text, packages=(), libraries=("pydantic",))


class Work:
    """Stores a text, and counts how often it was asked to."""

    def __init__(self, context, text=b"made"):
        self.calls = 0
        self._context, self._text = context, text

    def __call__(self, key):
        self.calls += 1
        return Text(artifact=self._context.store.put_bytes(self._text))


def run(work, context, components=None, stage=STAGE):
    return run_stage(stage, components or {"config:x": "1"}, work, context)


def object_path(context, ref):
    return Path(context.store_url) / "objects" / ref.sha256[:2] / ref.sha256


def test_the_second_run_is_cached(context):
    work = Work(context)
    first, second = run(work, context), run(work, context)
    assert [first.status, second.status, work.calls] == ["ran", "cached", 1]
    assert first.product == second.product
    assert first.cache_key == second.cache_key
    assert second.num_bytes == len(b"made")


def test_another_component_is_another_result(context):
    work = Work(context)
    run(work, context)
    assert run(work, context, {"config:x": "2"}).status == "ran"


def test_off_neither_reads_nor_writes(context):
    work, off = Work(context), context.model_copy(update={"cache": "off"})
    assert run(work, off).status == "ran"
    assert run(work, context).status == "ran"
    assert run(work, off).status == "ran"


def test_refresh_runs_and_replaces(context):
    run(Work(context, b"old"), context)
    refreshed = run(Work(context, b"new"), context.model_copy(update={"cache": "refresh"}))
    assert refreshed.status == "ran"
    assert run(Work(context), context).product == refreshed.product


@pytest.mark.parametrize("damage", ["delete", "flip", "truncate", "directory"])
def test_a_damaged_artifact_is_a_miss_and_heals(context, damage):
    work = Work(context)
    path = object_path(context, run(work, context).product.artifact)
    path.chmod(0o644)
    if damage in ("delete", "directory"):
        path.unlink()
        if damage == "directory":
            (path / "in the way").mkdir(parents=True)
    else:
        path.write_bytes(b"mada" if damage == "flip" else b"ma")
    assert run(work, context).status == "ran"
    assert path.read_bytes() == b"made"
    assert run(work, context).status == "cached"


def test_a_damaged_record_is_a_miss(context):
    work = Work(context)
    key = run(work, context).cache_key
    (Path(context.store_url) / "cache" / "export" / f"{key}.json").write_text('{"half": ')
    assert run(work, context).status == "ran"


def test_a_stage_may_know_more_ways_to_be_damaged(context):
    def verify(product, context):
        raise ArtifactDamagedError("the local copy is gone")

    work = Work(context)
    run(work, context)
    picky = Stage(name="export", product_type=Text, packages=(), libraries=("pydantic",), verify=verify)
    assert run(work, context, stage=picky).status == "ran"


def test_what_a_result_makes_needless_is_removed_only_once_the_result_is_recorded(context, tmp_path):
    removed = []

    def run_and_remove():
        return run_stage(STAGE, {"config:x": "1"}, Work(context), context, on_recorded=removed.append)

    (tmp_path / "store" / "cache").mkdir(parents=True)
    (tmp_path / "store" / "cache" / "export").write_text("in the way of the record")
    with pytest.raises(StorageUnavailableError):
        run_and_remove()
    assert removed == []
    (tmp_path / "store" / "cache" / "export").unlink()
    assert [removed[0].sha256 for _ in range(2) if run_and_remove()] == [run_and_remove().cache_key] * 2
    assert len(removed) == 1


def test_a_failure_is_not_cached(context):
    def fail(key):
        raise TransientError("not now")

    with pytest.raises(TransientError):
        run(fail, context)
    assert run(Work(context), context).status == "ran"


def test_equal_components_in_another_order_are_the_same_key():
    assert StageKey("export", {"a": "1", "b": "2"}).sha256 == StageKey("export", {"b": "2", "a": "1"}).sha256
    assert StageKey("export", {"a": "1"}).sha256 != StageKey("train", {"a": "1"}).sha256


def _slow_run(context, results, started, both):
    def work(key):
        started.put(os.getpid())
        time.sleep(0.5)  # long enough for the other to come to the lock
        return Text(artifact=context.store.put_bytes(b"made"))

    both.wait(60)
    results.put(run_stage(STAGE, {"config:x": "1"}, work, context).status)


def test_of_two_processes_one_works_and_the_other_reuses(context):
    ctx = multiprocessing.get_context("spawn")
    results, started, both = ctx.Queue(), ctx.Queue(), ctx.Barrier(2)
    workers = [ctx.Process(target=_slow_run, args=(context, results, started, both)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=60) for _ in workers) == ["cached", "ran"]
    for worker in workers:
        worker.join()
    assert started.get(timeout=60) in {worker.pid for worker in workers}
    assert started.empty(), "both worked"


def _never_ending_run(context, started):
    def work(key):
        started.put(os.getpid())
        time.sleep(600)

    run_stage(STAGE, {"config:x": "1"}, work, context)


def test_a_killed_holder_frees_the_key(context):
    ctx = multiprocessing.get_context("spawn")
    started = ctx.Queue()
    holder = ctx.Process(target=_never_ending_run, args=(context, started))
    holder.start()
    started.get(timeout=60)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert run(Work(context), context).status == "ran"


@pytest.mark.parametrize("stage", ["staging", "training", "metrics", "export", "validation", "registry"])
def test_a_stages_code_is_its_package_and_what_that_imports(stage):
    names = set(code_components((f"trainyard.tasks.{stage}",)))
    assert any(name.startswith(f"code:{stage}/") for name in names)
    assert "code:artifacts/products.py" in names
    assert not any(name.endswith("/task.py") or "caching" in name for name in names)


def test_whatever_reads_objects_is_part_of_the_key_of_what_is_staged():
    from trainyard.tasks.staging.task import STAGE as STAGING

    assert {"library:fsspec", "library:s3fs", "library:obstore"} <= set(STAGING.key({}).components)


def test_the_code_of_one_stage_holds_none_of_another():
    files = {path.parent.name for path in code_files(("trainyard.tasks.export",))}
    assert not files & {"training", "staging", "metrics", "validation", "registry", "launchers"}


@pytest.mark.parametrize("where", ["home", "store"])
def test_waiting_for_another_run_ends_at_the_stages_time_limit(context, where):
    name = f"export-{STAGE.key({'config:x': '1'}).sha256}.lock"
    lock = context.home / "locks" / name if where == "home" else context.store.root.local_path / "leases" / name
    lock.parent.mkdir(parents=True)
    work = Work(context)
    with FileLock(lock), pytest.raises(StageTimeoutError, match=r"more than 0\.3 seconds"):
        run(work, context.model_copy(update={"timeout_s": 0.3}))
    assert work.calls == 0


@pytest.mark.parametrize("homes", [("home", "home"), ("home", "another home")], ids=["one home", "two homes"])
def test_of_several_threads_one_works_at_a_key_and_the_others_reuse(tmp_path, homes):
    """Two homes on one store: two users of a machine, or two machines that mount its disk."""
    contexts = [StageContext(store_url=str(tmp_path / "store"), home=tmp_path / homes[n % 2]) for n in range(6)]
    all_there, calls = threading.Barrier(len(contexts)), []

    def work_at(context):
        def work(key):
            calls.append(threading.get_ident())
            time.sleep(0.3)  # long enough for the others to come to the lock
            return Text(artifact=context.store.put_bytes(b"made"))

        all_there.wait(60)
        return run_stage(STAGE, {"config:x": "1"}, work, context).status

    with ThreadPoolExecutor(len(contexts)) as pool:
        statuses = list(pool.map(work_at, contexts))
    assert (sorted(statuses), len(calls)) == (["cached"] * 5 + ["ran"], 1)


def test_everybody_sees_who_works_at_a_key_of_a_store_on_a_disk(context):
    """'trainyard gc' of another home, for one."""

    def work(key):
        assert is_leased(context.store, "export", key.sha256)
        return Text(artifact=context.store.put_bytes(b"made"))

    key = run(work, context).cache_key
    assert not is_leased(context.store, "export", key)


def test_a_store_that_cannot_be_locked_is_still_read(context, caplog):
    """As one on a disk that is mounted to be read only."""
    caplog.set_level("INFO")
    run(Work(context), context)
    leases = context.store.root.local_path / "leases"
    shutil.rmtree(leases)
    leases.write_text("in the way of the locks")
    assert run(Work(context), context).status == "cached"
    assert "cannot be locked" in caplog.text


def test_a_store_that_may_only_be_read_serves_a_pipeline_run(small_disk, tmp_path, caplog, monkeypatch):
    context = StageContext(
        store_url=str(small_disk / "store"), home=tmp_path / "home", run_folder=RunName.now("1").folder
    )
    run(Work(context), context)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    monkeypatch.setattr("trainyard.flows.answers.flow_run", SimpleNamespace(id="run-1"))
    found = run(Work(context), context)
    keep_product(context.store_url, "export", found.product)
    assert found.status == "cached"
    assert "will not know how the stage 'export' went" in caplog.text
    assert "does not keep how this run ended" in caplog.text


def test_only_what_computing_the_key_says_of_an_input_ends_the_stage(context):
    def missing():
        raise StorageNotFoundError("no such bucket")

    def broken():
        raise RecursionError("a script that is nested too deeply")

    with pytest.raises(StorageNotFoundError):
        run_stage(STAGE, missing, Work(context), context)
    work = Work(context)
    result = run_stage(STAGE, broken, work, context)
    assert (result.status, result.cache_key, work.calls) == ("ran", None, 1)


def test_a_stage_whose_key_cannot_be_computed_runs_and_is_not_recorded(context, caplog):
    seen = []

    def work(key):
        seen.append(key.sha256)
        return Text(artifact=context.store.put_bytes(b"made"))

    for _ in range(2):
        result = run(work, context, {"config:x": object()})
        assert (result.status, result.cache_key) == ("ran", None)
    assert seen[0] != seen[1]
    assert "cannot be computed" in caplog.text
    assert not (Path(context.store_url) / "cache").exists()


def test_looking_up_finds_what_running_would_and_never_works(context):
    assert look_up(STAGE, {"config:x": "1"}, context) is None
    made = run(Work(context), context)
    found = look_up(STAGE, {"config:x": "1"}, context)
    assert (found.status, found.cache_key, found.product) == ("cached", made.cache_key, made.product)
    assert look_up(STAGE, {"config:x": "2"}, context) is None


def test_looking_up_believes_no_damaged_artifact(context):
    made = run(Work(context), context)
    path = object_path(context, made.product.artifact)
    path.chmod(0o644)
    path.write_bytes(b"other")
    assert look_up(STAGE, {"config:x": "1"}, context) is None


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_looking_up_respects_the_cache_mode(context, mode):
    run(Work(context), context)
    assert look_up(STAGE, {"config:x": "1"}, context.model_copy(update={"cache": mode})) is None


def test_looking_up_leaves_out_what_only_another_machine_can_prove(context):
    def refuse(product, context):
        raise ArtifactDamagedError("the files are not on this machine")

    run(Work(context), context)
    assert look_up(replace(STAGE, verify=refuse), {"config:x": "1"}, context) is not None
