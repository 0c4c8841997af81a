"""Whatever ends a run, within 15 seconds nothing of it is left: not its ranks, nor anything that they started.

Each rank has started a child, a child that forked itself away into a session of its own and ignores SIGTERM, and
workers: torch's own in one row a launcher, and elsewhere such as do not look after themselves, without the seconds of
importing torch. All of them carry a mark in their environment.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import CANCEL_POLL_S, LIMIT_S, command_of, describe, marked, wait_for

PROJECT = Path(__file__).parents[1] / "projects" / "failing"
PROCESSES = {  # under mpirun: flow, supervisor, mpirun; a rank: stub, keeper, itself, two children, two workers
    "mpi": 3 + 2 * 7,
    "single": 2 + 7,
}
DURATION_S = 15


def estimator(launched, mark, at="workers"):
    topology = {"process_count_per_node": 2, "distributed_backend": "mpi"} if launched == "mpi" else {}
    params = {"--end": at, "--others": at, "--child": "", "--mark": mark}
    return {"source_directory": str(PROJECT), "entry_script": "train.py", "script_params": params, **topology}


def environment(home, prefect_server, mark):
    return {
        **os.environ,
        "TRAINYARD_HOME": str(home),
        "PREFECT_API_URL": prefect_server,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "ORPHAN_MARK": mark,
    }


def start(command, log, env):
    """In a session of its own, as a terminal would: Ctrl-C then goes to the whole group."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env=env,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def one(processes, *words):
    """The oldest process with some words in its command line."""
    found = [p for p in processes if all(word in " ".join(command_of(p)) for word in words)]
    return min(found, key=lambda process: (process.create_time(), process.pid))


def a_rank(processes):
    """The process that runs the script: the parent of the child that stays."""
    return one(processes, "import time; time.sleep(600)").parent()


def stop_then_ask(processes, flow):
    a_rank(processes).send_signal(signal.SIGSTOP)
    flow.send_signal(signal.SIGTERM)


STOPS = {
    "ctrl-c": lambda flow, processes: os.killpg(flow.pid, signal.SIGINT),
    "sigterm": lambda flow, processes: flow.send_signal(signal.SIGTERM),
    "kill-flow": lambda flow, processes: flow.kill(),
    "kill-supervisor": lambda flow, processes: one(processes, "supervisor.py").kill(),
    "kill-mpirun": lambda flow, processes: one(processes, "supervisor.py").children()[0].kill(),
    "kill-rank": lambda flow, processes: a_rank(processes).kill(),
    "kill-keeper": lambda flow, processes: a_rank(processes).parent().kill(),
    "kill-stub": lambda flow, processes: a_rank(processes).parent().parent().kill(),
    "stop-rank-then-sigterm": lambda flow, processes: stop_then_ask(processes, flow),
}
WITH_TORCH = "sigterm"
"""The stop at which the workers are those of torch's data loader."""

TERMINAL = [("mpi", stop) for stop in STOPS] + [("single", stop) for stop in STOPS if stop != "kill-mpirun"]


@pytest.mark.parametrize(("launched", "stop"), TERMINAL)
def test_a_run_in_the_terminal(prefect_server, home, tmp_path, mark, launched, stop):
    pipeline = tmp_path / "pipeline.json"
    at = "data-loader" if stop == WITH_TORCH else "workers"
    pipeline.write_text(json.dumps({"estimator": estimator(launched, mark, at), "export": None}))
    log = tmp_path / "log"
    flow = start(["trainyard", "run", str(pipeline)], log, environment(home, prefect_server, mark))
    assert wait_for(lambda: len(marked(mark)) >= PROCESSES[launched], 180), describe(marked(mark)) + log.read_text()
    processes = marked(mark)
    STOPS[stop](flow, processes)
    stopped_at = time.monotonic()
    assert wait_for(lambda: flow.poll() is not None and not marked(mark), LIMIT_S), describe(marked(mark))
    assert time.monotonic() - stopped_at <= LIMIT_S + 5
    assert flow.returncode != 0


def test_the_longest_run_duration(prefect_server, home, tmp_path, mark):
    limited = {**estimator("mpi", mark), "max_run_duration_seconds": DURATION_S}
    pipeline = tmp_path / "pipeline.json"
    pipeline.write_text(json.dumps({"estimator": limited, "export": None}))
    log = tmp_path / "log"
    flow = start(["trainyard", "run", str(pipeline)], log, environment(home, prefect_server, mark))
    assert wait_for(lambda: len(marked(mark)) >= PROCESSES["mpi"], 60), log.read_text()
    assert wait_for(lambda: flow.poll() is not None and not marked(mark), DURATION_S + LIMIT_S), describe(marked(mark))
    assert f"did not finish within {DURATION_S} seconds" in log.read_text()


@pytest.fixture
def deployed(prefect_server):
    """The pipeline as a deployment on a process pool; gives a function that runs it there."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.flows import EntrypointType

    from trainyard import training_pipeline

    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name="orphans", type="process"))

    def run(parameters, **job_variables):
        deployment = training_pipeline.to_deployment(
            "orphans",
            work_pool_name="orphans",
            entrypoint_type=EntrypointType.MODULE_PATH,
            job_variables=job_variables,
        )
        deployment.apply()
        return run_deployment("training-pipeline/orphans", parameters=parameters, timeout=0)

    return run


def cancel(run, worker, env):
    command = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run.id)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


WORKER_STOPS = {
    "cancel": cancel,
    "kill-worker": lambda run, worker, env: worker.kill(),
}


@pytest.mark.parametrize(
    ("stop", "job_variables"),
    [("cancel", {}), ("kill-worker", {}), ("kill-worker", {"stream_output": False})],
    ids=["cancel", "kill-worker", "kill-worker-without-its-output"],
)
def test_a_run_on_a_worker(prefect_server, deployed, home, tmp_path, mark, stop, job_variables):
    log = tmp_path / "log"
    command = ["prefect", "worker", "start", "--pool", "orphans", "--type", "process", "--name", mark]
    worker = start(command, log, environment(home, prefect_server, mark))

    def of_run():
        return [process for process in marked(mark) if process.pid != worker.pid]

    try:
        run = deployed({"estimator": estimator("mpi", mark), "export": None}, **job_variables)
        assert wait_for(lambda: len(of_run()) >= PROCESSES["mpi"], 180), describe(of_run()) + log.read_text()
        WORKER_STOPS[stop](run, worker, {**os.environ, "PREFECT_API_URL": prefect_server})
        limit_s = LIMIT_S + (CANCEL_POLL_S if stop == "cancel" else 0)
        assert wait_for(lambda: not of_run(), limit_s), describe(of_run())
    finally:
        worker.kill()
        worker.wait()
