import os
import sys

import pytest

from trainyard import Datastore, Hosts, PyTorch
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.training.data_views import make_views
from trainyard.tasks.training.hosts.plan import forwarded, hosts_plan, on_hosts
from trainyard.tasks.training.launch import launch_spec
from trainyard.tasks.training.launchers.choose import build_launch_command
from trainyard.tasks.training.run_directory import RunDirectory


@pytest.fixture
def spec(tmp_path, home, points):
    (tmp_path / "train.py").touch()
    context = StageContext.from_settings()

    def make(environment_variables=None, **changes):
        estimator = PyTorch(
            source_directory=str(tmp_path),
            entry_script="train.py",
            script_params={"--data": Datastore(url=str(points)), "--lr": 0.1},
            inputs={"POINTS": Datastore(url=str(points)).path("points.npy")},
            compute_target=Hosts(hosts=["a", "b"], **changes),
            node_count=2,
            distributed_backend="mpi",
            environment_variables=environment_variables or {},
        )
        data = stage_references(estimator.references, context)
        run = RunDirectory.create(context.home, StageKey("train", {}))
        run.workspace.mkdir(parents=True)
        paths = make_views(estimator.references, data, run, context.home).paths
        local = launch_spec(estimator, run, paths, context)
        return on_hosts(
            local, estimator, hosts_plan(sys.executable, estimator.compute_target, run, data, context), paths
        )

    return make


def test_what_runs_here_is_the_controller_and_shows_no_values(spec, monkeypatch):
    monkeypatch.setenv("OF_THIS_MACHINE", "x")
    made = spec({"PASSWORD": "s3cr3t", "PATH": "/theirs"})
    command = build_launch_command(made)
    assert command.argv[:3] == (sys.executable, "-m", "trainyard.tasks.training.hosts")
    assert "s3cr3t" not in " ".join(command.argv)
    assert command.env["PATH"] == os.environ["PATH"]
    ranks = forwarded(command.env)
    assert ranks["PASSWORD"] == "s3cr3t"
    assert ranks["PATH"] == "/theirs"
    assert "OF_THIS_MACHINE" not in ranks
    assert ranks["TRAINYARD_WORLD_SIZE"] == "2"


@pytest.mark.parametrize(("there", "expected"), [(None, "{home}/node"), ("/var/tmp/yard", "/var/tmp/yard")])
def test_paths_are_those_of_the_nodes(spec, home, there, expected):
    made = spec(home=there)
    root = expected.format(home=home)
    assert made.arguments[0] == "--data"
    assert made.arguments[1].startswith(f"{root}/work/")
    ranks = forwarded(made.environment)
    assert ranks["POINTS"].startswith(f"{root}/work/")
    assert ranks["POINTS"].endswith("/points.npy")
    for name in ("OUTPUT", "CHECKPOINT", "METRICS", "RANKS"):
        assert ranks[f"TRAINYARD_{name}_DIR"].startswith(f"{root}/")


def test_only_whole_paths_below_the_home_are_translated(spec, home):
    plan = spec(home="/there").hosts
    assert plan.text_on_node(f"{home}/runs/1") == "/there/runs/1"
    assert plan.text_on_node(f"file://{home}/runs/1") == "file:///there/runs/1"
    assert plan.text_on_node(f"{home}-other/x") == f"{home}-other/x"
    assert plan.text_on_node("words") == "words"
