"""TensorBoard's and MLflow's own writers, read back as metrics; a skip names the package that is missing."""

import importlib.util
import logging

import pytest

from trainyard.tasks.metrics.collect import collect_metrics, read_report
from trainyard.tasks.metrics.names import distinct_names
from trainyard.tasks.runtime.ranks import Rank
from trainyard.tasks.runtime.run import Run, _record_appender


@pytest.fixture
def directory(tmp_path):
    """Records of a rank that logged a loss."""
    records = tmp_path / "records"
    place = Rank(0, 0, 1, launched_by_mpi=False, host="node0")
    Run("run", place, _record_appender(records, place), records / "outputs").log("loss", 0.5, step=1)
    return records


@pytest.fixture
def write_events(directory):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def write(place="runs/Nov01_host", **scalars):
        folder = directory / "tensorboard" / place
        with SummaryWriter(str(folder)) as writer:
            for name, values in scalars.items():
                for step, value in enumerate(values):
                    writer.add_scalar(name.replace("__", "/"), value, step)
        return max(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)

    return write


@pytest.fixture
def mlflow_client(directory, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return mlflow.MlflowClient(tracking_uri=(directory / "mlflow").as_uri())


def collect(directory, context):
    metrics = collect_metrics(context.store.put_tree(directory), context)
    return read_report(metrics, context.store)


def test_tensorboard_scalars_are_series_like_any_other(directory, context, write_events):
    write_events(Loss__train=[1.0, 0.5, 0.25], lr=[0.1])
    report = collect(directory, context)
    assert report.finals == {"loss": 0.5, "Loss/train": 0.25, "lr": pytest.approx(0.1)}
    series = next(each for each in report.series if each.name == "Loss/train")
    assert series.rank == 0 and series.steps == (0, 1, 2) and series.values == (1.0, 0.5, 0.25)
    assert min(series.times_s) >= 0 and report.notes == ()


def test_the_newer_way_of_writing_and_other_kinds_of_summaries(directory, context, write_events):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(directory / "tensorboard" / "logs")) as writer:
        for step, value in enumerate([3.0, 4.0]):
            writer.add_scalar("new", value, step, new_style=True)
        writer.add_text("words", "no number", 0)
        writer.add_histogram("weights", __import__("numpy").arange(5.0), 0)
    assert collect(directory, context).finals == {"loss": 0.5, "new": 4.0}


def test_one_tag_in_several_folders_is_told_apart(directory, context, write_events):
    write_events("runs/x/acc_train", acc=[0.1, 0.9])
    write_events("runs/x/acc_test", acc=[0.2, 0.8])
    assert set(collect(directory, context).finals) == {"loss", "acc_train/acc", "acc_test/acc"}


def test_a_restarted_writer_continues_its_series(directory, context, write_events):
    write_events(acc=[0.1])
    write_events(acc=[0.2])
    (series,) = [each for each in collect(directory, context).series if each.name == "acc"]
    assert sorted(series.values) == pytest.approx([0.1, 0.2])


def test_a_name_that_the_script_logs_too_is_prefixed(directory, context, write_events):
    write_events(loss=[7.0])
    assert collect(directory, context).finals == {"loss": 0.5, "tensorboard/loss": 7.0}


@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (lambda data: data[:-10], {"a": 1.0}),  # half a last record
        (lambda data: data[:-60] + b"?" + data[-59:], {"a": 1.0}),  # a bit of the last two records
        (lambda data: b"no event file at all" * 9, {}),
        (lambda data: b"", {}),
    ],
    ids=["cut", "damaged", "garbage", "empty"],
)
def test_damaged_files_are_read_as_far_as_they_go(directory, context, write_events, harm, left, caplog):
    path = write_events(a=[1.0, 1.0, 1.0, 1.0])
    path.write_bytes(harm(path.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="trainyard"):
        report = collect(directory, context)
    assert report.finals == {"loss": 0.5, **left}
    if path.stat().st_size:
        (note,) = report.notes
        assert path.name in note and "damaged" in note
        assert sum(path.name in record.message for record in caplog.records) == 1


def test_mlflow_metrics_parameters_and_tags(directory, context, mlflow_client):
    run = mlflow_client.create_run("0", run_name="first")
    for step, value in enumerate([3.0, 2.0]):
        mlflow_client.log_metric(run.info.run_id, "val/loss", value, step=step)
    mlflow_client.log_param(run.info.run_id, "lr", 0.1)
    mlflow_client.set_tag(run.info.run_id, "team", "blue")
    mlflow_client.create_run("0", run_name="empty")
    report = collect(directory, context)
    assert report.finals == {"loss": 0.5, "val/loss": 2.0}
    assert next(each for each in report.series if each.name == "val/loss").values == (3.0, 2.0)
    assert report.tags == {"lr": "0.1", "team": "blue"} and report.notes == ()


def test_mlflow_runs_with_the_same_metric_are_told_apart(directory, context, mlflow_client):
    runs = [mlflow_client.create_run("0", run_name=name, start_time=n) for n, name in enumerate(["a", "b", "b"])]
    for value, run in enumerate(runs):
        mlflow_client.log_metric(run.info.run_id, "acc", float(value))
    ids = [run.info.run_id[:8] for run in runs]
    expected = {"loss": 0.5, "a/acc": 0.0, f"{ids[1]}/acc": 1.0, f"{ids[2]}/acc": 2.0}
    assert collect(directory, context).finals == expected


def test_a_damaged_mlflow_store_costs_no_other_metric(directory, context, mlflow_client):
    run = mlflow_client.create_run("0")
    mlflow_client.log_metric(run.info.run_id, "acc", 1.0)
    (directory / "mlflow" / "0" / run.info.run_id / "metrics" / "acc").write_text("not a metric\n")
    report = collect(directory, context)
    assert report.finals == {"loss": 0.5}
    assert "cannot be read" in report.notes[0]


@pytest.mark.parametrize("library", ["tensorboard", "mlflow"])
def test_what_cannot_be_read_is_said_once(directory, context, library, monkeypatch, caplog):
    """Also where both packages are installed: whether they are is asked of the import system."""
    (directory / library).mkdir()
    (directory / library / "something").write_text("x")
    find_spec = importlib.util.find_spec
    for module in ("event_files", "mlflow_runs"):
        monkeypatch.setattr(
            f"trainyard.tasks.metrics.{module}.find_spec", lambda name: None if name == library else find_spec(name)
        )
    with caplog.at_level(logging.WARNING, logger="trainyard"):
        report = collect(directory, context)
    assert report.finals == {"loss": 0.5}
    assert f"pip install 'trainyard[{library}]'" in report.notes[0]
    assert sum(library in record.message for record in caplog.records) == 1


def test_names():
    places = [("a", "x"), ("b", "x"), ("a", "y"), ("", "z"), ("c", "z"), ("a", "x")]
    assert distinct_names(places) == {
        ("a", "x"): "a/x",
        ("b", "x"): "b/x",
        ("a", "y"): "y",
        ("", "z"): "z",
        ("c", "z"): "c/z",
    }
