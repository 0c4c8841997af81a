"""Training goes on from where it, or another training, had come to; never from half a checkpoint."""

import json

import pytest
from prefect.artifacts import Artifact

from trainyard import Datastore, StagePolicy, errors
from trainyard.tasks.metrics.task import RESUMED


def checkpoint(folder, epoch):
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": torch.nn.Linear(2, 2).state_dict(), "epoch": epoch}, folder / "last.pt")
    return folder


def test_another_trainings_checkpoints_are_resumed_from_and_decide_the_key(run_pipeline, tmp_path):
    earlier = checkpoint(tmp_path / "earlier", epoch=4)
    content = (earlier / "last.pt").read_bytes()
    resume = {"resume_from": Datastore(url=str(earlier))}
    first = run_pipeline(estimator=resume, export=None)
    assert first.metrics["started_at_epoch"] == 4
    assert f"> {RESUMED}" in Artifact.get("training-metrics").data
    assert (earlier / "last.pt").read_bytes() == content
    assert run_pipeline(estimator=resume, export=None).stages["train"].status == "cached"

    checkpoint(earlier, epoch=6)
    again = run_pipeline(estimator=resume, export=None)
    assert again.stages["train"].status == "ran"
    assert again.metrics["started_at_epoch"] == 6
    assert run_pipeline(export=None).metrics["started_at_epoch"] == 0
    assert RESUMED not in Artifact.get("training-metrics").data


def test_a_retry_goes_on_from_its_own_checkpoint_and_passes_over_a_broken_one(run_pipeline, linear_project, home):
    """The script writes its checkpoint in place, and is killed in the middle of the third."""
    script = linear_project / "train.py"
    interrupted = (
        "        if epoch + 1 == 3 and not Path(os.environ['TRAINYARD_CHECKPOINT_DIR'], 'killed').exists():\n"
        "            Path(os.environ['TRAINYARD_CHECKPOINT_DIR'], 'killed').touch()\n"
        "            newest = Path(os.environ['TRAINYARD_CHECKPOINT_DIR'], 'newest.pt')\n"
        "            newest.write_bytes(checkpoint.read_bytes()[:1000])\n"
        "            os.kill(os.getpid(), 9)\n"
    )
    mark = "        scratch = checkpoint.with_suffix"
    text = script.read_text().replace(mark, interrupted + mark)
    newest = "newest = checkpoint.with_name('newest.pt')\ncheckpoint = newest if newest.exists() else checkpoint\n"
    script.write_text(text.replace("start = 0\n", f"start = 0\n{newest}"))
    with pytest.raises(errors.TrainingFailedError, match="SIGKILL"):
        run_pipeline(export=None)
    result = run_pipeline(export=None, policies={"train": StagePolicy(retries=1, retry_delay_s=0.1)})
    assert result.metrics["started_at_epoch"] == 2
    runs = sorted((home / "runs").iterdir())
    assert [path.name for path in (runs[1] / "broken").iterdir()] == ["newest.pt"]
    assert json.loads((runs[0] / "ranks" / "rank-00000.exit.json").read_bytes())["returncode"] == -9
