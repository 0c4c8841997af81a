"""Scripts that log with TensorBoard's writer and with MLflow, as they are."""

import pytest

from trainyard import PyTorch

SCRIPT = """\
import mlflow
from torch.utils.tensorboard import SummaryWriter

with SummaryWriter() as writer:
    for step in range(3):
        writer.add_scalar("Loss/train", 1 / (step + 1), step)
mlflow.set_experiment("digits")
with mlflow.start_run(run_name="first"):
    mlflow.log_param("lr", 0.1)
    mlflow.log_metric("accuracy", 0.75, step=2)
    mlflow.log_dict({"a": 1}, "notes/a.json")
"""


def test_what_a_script_logs_elsewhere_arrives_like_any_other_metric(prefect_server, home, tmp_path, monkeypatch):
    for package in ("tensorboard", "mlflow"):
        pytest.importorskip(package)
    from trainyard import training_pipeline

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    result = training_pipeline(PyTorch(source_directory=str(folder), entry_script="train.py"), export=None)
    assert result.metrics == {"Loss/train": pytest.approx(1 / 3), "accuracy": 0.75}
    (run,) = (home / "runs").iterdir()
    (kept,) = (run / "source" / "outputs" / "mlflow").glob("*/notes/a.json")
    assert '"a": 1' in kept.read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["train.py"]
