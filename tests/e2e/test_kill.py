"""SIGKILL of the flow during training: nothing is left, and the next run goes on from the checkpoint."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import are_gone, command_of, describe, wait_for

CALLER = """
import json, sys
from trainyard import training_pipeline, PyTorch
result = training_pipeline(PyTorch.model_validate_json(sys.argv[1]), export=None)
print(json.dumps({"metrics": result.metrics, "stages": {n: s.status for n, s in result.stages.items()}}))
"""


def environment(home, **changes):
    return {**os.environ, "TRAINYARD_HOME": str(home), **changes}


def start(estimator, env, log):
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, estimator.model_dump_json()],
        env=env,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def checkpoint_epochs(home):
    import torch

    epochs = []
    for path in home.glob("checkpoints/*/last.pt"):
        epochs.append(torch.load(path, weights_only=True)["epoch"])
    return max(epochs, default=0)


def family(pid):
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def test_kill_9_of_the_flow_leaves_nothing_and_training_goes_on(prefect_server, home, linear_project, points, tmp_path):
    from tests.e2e.conftest import small_estimator

    slow = {"--epochs": 8, "--nap": 1.0}
    mpi = {"process_count_per_node": 2, "distributed_backend": "mpi"}
    estimator = small_estimator(linear_project, points, script_params=slow, **mpi)
    env = environment(home, PREFECT_API_URL=prefect_server)
    with (tmp_path / "log").open("wb") as log:
        first = start(estimator, env, log)
        assert wait_for(lambda: checkpoint_epochs(home) >= 2, 90), (tmp_path / "log").read_text()
        processes = family(first.pid)
        ranks = [p for p in processes if "mpi4py" in command_of(p) and "python" in command_of(p)[0]]
        assert len(ranks) == 2 * 3, "a rank, its keeper and its stub have the same command line"
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        gone = wait_for(lambda: are_gone(processes), 15)
        assert gone, describe(processes)
        reached = checkpoint_epochs(home)
        assert reached < 8

        output, _ = start(estimator, env, log).communicate(timeout=120)
    result = json.loads(output.splitlines()[-1])
    assert result["stages"] == {"stage": "cached", "train": "ran", "metrics": "ran"}
    assert result["metrics"]["started_at_epoch"] == reached
    assert not list(home.glob("checkpoints/*")), "checkpoints of a finished training are discarded"


def test_kill_9_does_not_leave_prefects_embedded_server(prefect_home, home, linear_project, points, tmp_path):
    """With no server configured, Prefect starts one as our child; it must go with us."""
    from tests.e2e.conftest import small_estimator

    estimator = small_estimator(linear_project, points, script_params={"--nap": 600})
    env = environment(home, PREFECT_HOME=str(prefect_home(tmp_path / "prefect")))
    with (tmp_path / "log").open("wb") as log:
        process = start(estimator, env, log)
        try:
            assert wait_for(lambda: checkpoint_epochs(home) >= 1, 120), (tmp_path / "log").read_text()
            processes = family(process.pid)
            assert [p for p in processes if any("prefect.server.api.server" in word for word in command_of(p))]
        finally:
            process.kill()
            process.wait()
    assert wait_for(lambda: are_gone(processes), 15)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asking_the_flow_to_stop_leaves_nothing(prefect_server, home, linear_project, points, tmp_path, signum):
    from tests.e2e.conftest import small_estimator

    estimator = small_estimator(linear_project, points, script_params={"--nap": 600})
    with (tmp_path / "log").open("wb") as log:
        process = start(estimator, environment(home, PREFECT_API_URL=prefect_server), log)
        assert wait_for(lambda: checkpoint_epochs(home) >= 1, 90), (tmp_path / "log").read_text()
        processes = family(process.pid)
        process.send_signal(signum)
        process.wait(timeout=30)
    assert process.returncode != 0
    assert wait_for(lambda: are_gone(processes), 15)
