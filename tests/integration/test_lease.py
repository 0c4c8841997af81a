"""Machines that share a store on S3: of several that need the same result, one works, and a dead one is replaced."""

import multiprocessing
import os
import signal
import threading
import time
import uuid

import pytest

from tests.integration.fault_server import run_fault_server
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.lease import held_lease, is_leased
from trainyard.tasks.caching.renewal import Lease
from trainyard.tasks.caching.stage import Stage, StageContext, run_stage
from trainyard.tasks.cleaning.collect import collect_garbage
from trainyard.tasks.cleaning.plan import Limits
from trainyard.tasks.errors import StageTimeoutError
from trainyard.tasks.specs.spec import Spec


class Text(Spec):
    artifact: ArtifactRef


STAGE = Stage(name="export", product_type=Text, packages=())


@pytest.fixture
def server(monkeypatch):
    with run_fault_server() as server:
        server.put("store", {})
        environment = {
            "AWS_ACCESS_KEY_ID": "fault-server-key",
            "AWS_SECRET_ACCESS_KEY": "fault-server-secret",
            "AWS_ENDPOINT_URL": server.endpoint_url,
            "TRAINYARD_LEASE_TTL_S": "3",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def store(server):
    return ArtifactStore(f"s3://store/{uuid.uuid4().hex[:8]}")


def on_another_machine(store, tmp_path, name):
    """A home directory of its own, so that no lock of the kernel is shared."""
    return StageContext(store_url=store.url, home=tmp_path / name)


def test_of_many_one_holds_the_lease_at_a_time(store):
    lock, inside, most, turns = threading.Lock(), 0, 0, 0

    def hold():
        nonlocal inside, most, turns
        with held_lease(store, "export", "k"):
            with lock:
                inside += 1
                most = max(most, inside)
                turns += 1
            time.sleep(0.1)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 5)
    assert not is_leased(store, "export", "k")


def test_a_lease_outlives_its_time_to_live_while_its_holder_lives(store):
    taken = threading.Event()

    def wait_for_it():
        with held_lease(store, "export", "k"):
            taken.set()

    with held_lease(store, "export", "k"):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not taken.wait(7)
        assert is_leased(store, "export", "k")
    assert taken.wait(30)
    waiting.join()


def test_of_two_machines_one_works_and_the_other_reuses(store, tmp_path):
    calls, results = [], []

    def run(name):
        context = on_another_machine(store, tmp_path, name)

        def work(key):
            calls.append(name)
            time.sleep(1)
            return Text(artifact=context.store.put_bytes(b"made"))

        results.append(run_stage(STAGE, {"config:x": "1"}, work, context).status)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(calls), sorted(results)) == (1, ["cached", "ran"])


def hold_for_ever(url, started):
    with held_lease(ArtifactStore(url), "export", "k"):
        started.set()
        time.sleep(600)


def test_the_lease_of_a_killed_holder_expires(store):
    spawn = multiprocessing.get_context("spawn")
    started = spawn.Event()
    holder = spawn.Process(target=hold_for_ever, args=(store.url, started))
    holder.start()
    assert started.wait(60)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with held_lease(store, "export", "k"):
        pass
    assert not is_leased(store, "export", "k")


def test_waiting_for_a_lease_ends_at_the_stages_time_limit(store, tmp_path):
    """Training is not interrupted by Prefect, so nothing else would end its wait."""
    context = on_another_machine(store, tmp_path, "two").model_copy(update={"timeout_s": 1.5})
    key = STAGE.key({"config:x": "1"}).sha256
    lease = Lease(holder="somebody", host="elsewhere", process=1, ttl_s=60)
    (store.root / f"leases/export-{key}.json").write_bytes(lease.model_dump_json().encode())
    calls = []
    with pytest.raises(StageTimeoutError, match=r"more than 1\.5 seconds"):
        run_stage(STAGE, {"config:x": "1"}, calls.append, context)
    assert calls == []


def test_what_is_no_lease_blocks_nobody(store):
    (store.root / "leases/export-k.json").write_bytes(b"{half")
    with held_lease(store, "export", "k"):
        assert is_leased(store, "export", "k")


def test_a_server_without_conditional_writes_still_has_one_holder_at_a_time_in_turn(server, store):
    server.conditional_puts = False
    for _ in range(2):
        with held_lease(store, "export", "k"):
            assert is_leased(store, "export", "k")
    assert not is_leased(store, "export", "k")


@pytest.mark.parametrize("knows_them", [True, False])
def test_whether_a_server_has_conditional_writes_is_tried_and_leaves_nothing(server, store, knows_them):
    server.conditional_puts = knows_them
    assert store.root.has_conditional_writes() is knows_them
    assert store.root.list_names() == []


def test_of_two_that_create_the_same_object_at_once_the_slower_one_is_told(server, store, monkeypatch):
    location = store.root / "claimed"
    assert location.create_bytes(b"first")
    monkeypatch.setattr(type(location._fs), "exists", lambda *_, **__: False)  # both looked before either wrote
    assert not (store.root / "claimed").create_bytes(b"second")
    assert location.read_bytes() == b"first"


def test_a_store_on_s3_is_cleaned(server, store, tmp_path):
    context = on_another_machine(store, tmp_path, "one")
    made = run_stage(STAGE, {}, lambda key: Text(artifact=context.store.put_bytes(b"made")), context).product
    limits = Limits(max_bytes=0, keep_s=0)
    collect_garbage(store, context.home, limits, dry_run=False)
    store.verify(made.artifact)  # young
    for found in server.buckets["store"].values():
        found.modified = found.modified.replace(year=2020)
    collect_garbage(store, context.home, limits, dry_run=False)
    assert server.buckets["store"] == {}
