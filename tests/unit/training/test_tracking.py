from pathlib import Path

import pytest

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.training.run_directory import RunDirectory
from trainyard.tasks.training.tracking import keep_tracking, tracking_environment


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path, StageKey("train", {}))
    run.workspace.mkdir(parents=True)
    run.keep_workspace(())
    return run


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kept(run, folder):
    return {path.relative_to(run.records / folder).as_posix() for path in (run.records / folder).rglob("*.*")}


def test_event_files_are_found_wherever_the_script_wrote_them(run):
    names = [
        "runs/Nov01/events.out.tfevents.1.host",
        "outputs/tb/events.out.tfevents.2",
        "deep/er/events.out.tfevents.3",
    ]
    for name in [*names, "committed/events.out.tfevents.0", "outputs/model.pt"]:
        write(run.source / name)
    (run.source / "link.events.out.tfevents.9").symlink_to(run.source / names[0])
    keep_tracking(run, {"committed/events.out.tfevents.0", "train.py"})
    assert kept(run, "tensorboard") == set(names)


def test_mlflow_artifacts_become_outputs(run):
    store = run.path / "mlflow"
    for name in ("0/meta.yaml", "0/abc/meta.yaml", "0/abc/metrics/acc", "0/abc/artifacts/plots/a.png", ".trash/1/x.y"):
        write(store / name)
    keep_tracking(run, set())
    files = {
        p.relative_to(run.records / "mlflow").as_posix() for p in (run.records / "mlflow").rglob("*") if p.is_file()
    }
    assert files == {"0/meta.yaml", "0/abc/meta.yaml", "0/abc/metrics/acc"}
    assert (run.source / "outputs" / "mlflow" / "abc" / "plots" / "a.png").is_file()


def test_a_run_without_either_keeps_nothing(run):
    keep_tracking(run, set())
    assert list(run.records.iterdir()) == []


def test_the_users_own_tracking_server_is_kept(run):
    assert tracking_environment({"MLFLOW_TRACKING_URI": "https://mlflow.example.org"}, run) == {}
    found = tracking_environment({}, run)
    assert found["MLFLOW_TRACKING_URI"] == (Path(run.path) / "mlflow").as_uri()
