"""Only training goes to a work pool, and behaves there as it does here: real server, real workers, two ranks."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

from tests.conftest import PROJECTS, write_points
from tests.e2e.conftest import small_estimator
from tests.e2e.yard import LOST_AFTER_S, runs_below
from tests.processes import CANCEL_POLL_S, LIMIT_S, are_gone, command_of, describe, marked, wait_for
from trainyard import errors
from trainyard.flows.work_pools import live_workers
from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.gpu_slots import gpu_slots

MPI = {"compute_target": "gpu", "process_count_per_node": 2, "distributed_backend": "mpi"}
STAGES = ["stage", "train", "metrics"]
LEASE_S = 5
"""Seconds after which a caller that was killed counts as gone; its training looks four times as often."""


@pytest.fixture
def here(tmp_path):
    """The caller's own home."""
    return tmp_path / "here"


@pytest.fixture
def job(linear_project, points, mark):
    def make(script_params=None, **changes):
        asked = {**MPI, "environment_variables": {"MARK": mark}, **changes}
        return small_estimator(linear_project, points, script_params=script_params or {}, **asked)

    return make


def runs_on(yard, pool, began):
    """The training runs of one pool since a moment; another pool's may begin whenever its worker is lost."""
    pools = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with yard.client() as client:
        runs = client.read_flow_runs(work_pool_filter=pools)
    return [run for run in runs if run.created.timestamp() > began]


@pytest.fixture
def left(mark):
    """What there is of a job, wherever it was reparented to, without its caller: the mark is in his arguments."""

    def others(caller):
        return [process for process in marked(mark) if process.pid != caller.pid]

    return others


# Holds one of the pool's GPU slots until it is killed.
HOLDER = """
import time
from trainyard.tasks.gpu_slots import gpu_slots
with gpu_slots("gpu", 1):
    print("held", flush=True)
    time.sleep(600)
"""


def active_slots(yard):
    with yard.client() as client:
        return client.read_global_concurrency_limit_by_name("gpu").active_slots


@pytest.fixture(scope="module", autouse=True)
def killed_holder(yard):
    """A training that held a GPU slot and was killed, a while before the last test."""
    env = yard.environment(PREFECT_API_URL=yard.api_url)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], env=env, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert active_slots(yard) == 1
    holder.kill()
    holder.communicate()
    return time.monotonic()


@pytest.fixture(scope="module", autouse=True)
def lost_worker(yard, tmp_path_factory):
    """A caller that trains on a pool of its own, whose only machine has just been lost.

    First of all, because the server takes some minutes to be sure; the last test looks how it went.
    """
    folder = tmp_path_factory.mktemp("lost")
    write_points(folder / "points")
    project = shutil.copytree(PROJECTS / "linear", folder / "linear")
    far = {**MPI, "compute_target": "far"}
    estimator = small_estimator(project, folder / "points", script_params={"--nap": 1.0, "--epochs": 8}, **far)
    with yard.client() as client:
        client.create_work_pool(WorkPoolCreate(name="far", type="process"))
    yard.trainyard("deploy", "--yes", "--train-on", "far")
    with yard.worker("far", folder / "first") as worker:
        patient = {"TRAINYARD_WORKER_WAIT_S": "1800"}  # the second worker comes after the tests in between
        caller = yard.start(estimator, folder / "here", variables=patient)
        assert wait_for(lambda: list((folder / "first").glob("checkpoints/*/last.pt")), 120)
        family = [worker, *worker.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    yield caller, folder, family
    caller.kill()
    caller.communicate()


def test_training_alone_runs_there_and_again_from_its_cache(yard, here, job, points):
    first = yard.call(job(), here)
    assert {name: stage["status"] for name, stage in first["stages"].items()} == dict.fromkeys(STAGES, "ran")
    assert list(first["stages"]) == STAGES
    assert first["metrics"]["accuracy"] > 0.9
    (child,) = runs_below(yard, first["run_id"])
    assert (child.name, child.work_pool_name, child.state_name) == ("train linear 1x2 mpi", "gpu", "Completed")

    # Staged and trained on the worker's side, nothing of it on the caller's.
    staged = {digest_file(path)[0] for path in yard.home.glob("datasets/*/data/*")}
    assert {digest_file(path)[0] for path in points.iterdir()} <= staged
    assert not (here / "datasets").exists()
    assert not (here / "runs").exists()

    with yard.client() as client:  # workers that other tests killed are said to live until heartbeats are missed
        assert wait_for(lambda: len(live_workers(client, "gpu")) == 1, 180)
    again = yard.call(job(), here)
    assert {stage["status"] for stage in again["stages"].values()} == {"cached"}
    assert again["stages"]["train"]["cache_key"] == first["stages"]["train"]["cache_key"]
    assert again["stages"]["stage"]["cache_key"] == first["stages"]["stage"]["cache_key"]
    assert runs_below(yard, again["run_id"]) == [], "the worker trains in our own environment, so that we know its key"

    for note in Path(yard.store.removeprefix("file://")).glob("answers/worker-*/environment.json"):
        note.unlink()
    unknown = yard.call(job(), here)
    assert {stage["status"] for stage in unknown["stages"].values()} == {"cached"}
    assert len(runs_below(yard, unknown["run_id"])) == 1, "where we do not know it, the pool is asked"


def test_its_deadline_is_kept_there(yard, here, job, left):
    """For each rank there are the stub, the keeper and itself; above them mpirun and the supervisor."""
    caller = yard.start(job({"--nap": 600}), here, policies={"train": {"timeout_s": 15}})
    assert wait_for(lambda: len(left(caller)) >= 2 * 3 or caller.poll() is not None, 120)
    assert caller.poll() is None, caller.communicate()
    above = yard.ranks()
    assert above
    output, log = caller.communicate(timeout=120)
    assert json.loads(output.splitlines()[-1])["error"] == "TrainingTimeoutError", log
    assert wait_for(lambda: not left(caller) and are_gone(above), LIMIT_S), describe(left(caller))


def test_ctrl_c_in_the_caller_leaves_nothing(yard, here, job, training, left):
    began = time.time()
    caller = yard.start(job({"--nap": 600, "--seed": 3}), here)
    assert wait_for(training, 120)
    assert left(caller)
    caller.send_signal(signal.SIGINT)
    caller.communicate(timeout=60)
    assert caller.returncode != 0
    assert wait_for(lambda: not left(caller), LIMIT_S + CANCEL_POLL_S), describe(left(caller))
    assert wait_for(lambda: [run.state_name for run in runs_on(yard, "gpu", began)] == ["Cancelled"], 30)


def test_kill_9_of_the_caller_ends_its_training(yard, here, job, training, left):
    began = time.time()
    caller = yard.start(job({"--nap": 600, "--seed": 5}), here, variables={"TRAINYARD_LEASE_TTL_S": str(LEASE_S)})
    ranks = wait_for(training, 120)
    assert ranks
    (run,) = runs_on(yard, "gpu", began)
    time.sleep(LEASE_S + 3)  # longer than the lease lives without its holder
    assert not are_gone(ranks), "who waits is seen to wait"
    below = [process for process in yard.service("worker-gpu") if "prefect.engine" in command_of(process)]
    assert below
    caller.kill()
    caller.communicate()
    until_seen_s = LEASE_S * 1.25 + CANCEL_POLL_S
    assert wait_for(lambda: not left(caller), until_seen_s + LIMIT_S), describe(left(caller))
    with yard.client() as client:
        assert wait_for(lambda: client.read_flow_run(run.id).state_name == "Cancelled", 30)
    assert wait_for(lambda: are_gone(below), 30)


def test_a_pool_without_a_worker_is_an_error_after_a_while_and_nothing_is_left_waiting(yard, here, job):
    began = time.time()
    with yard.client() as client:
        client.create_work_pool(WorkPoolCreate(name="quiet", type="process"), overwrite=True)
    yard.trainyard("deploy", "--yes", "--train-on", "quiet")
    quiet = job(compute_target="quiet", process_count_per_node=1, distributed_backend=None)
    refused = yard.call(quiet, here, variables={"TRAINYARD_WORKER_WAIT_S": "3"})
    assert refused["error"] == "WorkerUnavailableError"
    assert "for 0:00:03: the work pool 'quiet' has no live worker" in refused["message"]
    assert "prefect worker start --pool quiet" in refused["message"]
    assert [run.state_name for run in runs_on(yard, "quiet", began)] == ["Cancelled"]


def test_a_crashed_training_goes_on_from_its_checkpoint_in_a_second_attempt(yard, here, job, training):
    afresh = {"train": {"cache": "refresh"}}  # and yet not in the second attempt
    caller = yard.start(job({"--nap": 1.0, "--epochs": 8, "--seed": 4}), here, policies=afresh)
    ranks = wait_for(training, 120)
    assert ranks
    (flow,) = [p for p in yard.service("worker-gpu") if "prefect.engine" in command_of(p)]
    os.kill(flow.pid, signal.SIGKILL)
    output, log = caller.communicate(timeout=200)
    result = json.loads(output.splitlines()[-1])
    assert result["stages"]["train"]["attempts"] == 2, log
    assert result["metrics"]["started_at_epoch"] >= 1
    assert [run.state_name for run in runs_below(yard, result["run_id"])] == ["Crashed", "Completed"]
    assert "crashed" in log


def test_no_retries_means_none_for_a_lost_worker_too(yard, here, job, training, left):
    caller = yard.start(job({"--nap": 600, "--seed": 6}), here, policies={"train": {"retries": 0}})
    assert wait_for(training, 120)
    assert left(caller)
    (flow,) = [p for p in yard.service("worker-gpu") if "prefect.engine" in command_of(p)]
    beat = flow.environ()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
    assert 3 * int(beat) <= int(LOST_AFTER_S), "a healthy run is heard several times before it would count as lost"
    os.kill(flow.pid, signal.SIGKILL)
    assert wait_for(lambda: not left(caller), LIMIT_S), describe(left(caller))
    output, log = caller.communicate(timeout=200)
    assert json.loads(output.splitlines()[-1])["error"] == "WorkerLostError", log


@pytest.mark.parametrize(
    ("target", "words"),
    [("moon", ["work pools there", "'gpu'"]), ("idle", ["trainyard deploy --train-on idle"])],
)
def test_a_pool_that_cannot_train_is_refused_before_anything_is_launched(yard, here, job, target, words):
    with yard.client() as client:
        client.create_work_pool(WorkPoolCreate(name="idle", type="process"), overwrite=True)
    refused = yard.call(job(compute_target=target), here)
    assert refused["error"] == "InvalidInputError"
    assert all(word in refused["message"] for word in words)


def test_a_lost_worker_is_noticed_and_training_is_sent_to_another(yard, lost_worker):
    caller, folder, family = lost_worker
    assert wait_for(lambda: are_gone(family), 15)
    with yard.worker("far", folder / "second"):
        output, log = caller.communicate(timeout=420)
    result = json.loads(output.splitlines()[-1])
    assert result["stages"]["train"]["attempts"] == 2, log
    assert [run.state_name for run in runs_below(yard, result["run_id"])] == ["Crashed", "Completed"]
    assert "No heartbeat" in log


def test_the_gpu_slots_of_a_killed_training_are_free_again(yard, killed_holder):
    assert wait_for(lambda: active_slots(yard) == 0, 150)


@pytest.mark.parametrize(("limit", "slots", "words"), [("none-such", 1, "trainyard deploy"), ("gpu", 99, "99 GPUs")])
def test_gpu_slots_that_never_come_are_refused(yard, limit, slots, words):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: yard.api_url}),
        pytest.raises(errors.InvalidInputError, match=words),
        gpu_slots(limit, slots),
    ):
        pass
