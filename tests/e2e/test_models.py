"""Models that are no saved programs, and champions, through the whole pipeline."""

from pathlib import Path

from tests.e2e.conftest import STAGES, that_ran
from trainyard import OnnxExport, OrtValidation
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.registry.aliases import champion_of, list_moves
from trainyard.tasks.settings import Settings

FACTORY = """
import torch

def linear():
    return torch.nn.Linear(2, 2)
"""


def test_a_state_dict_becomes_champion_and_gives_way_to_a_model_that_is_not_worse(run_pipeline, linear_project):
    script = (linear_project / "train.py").read_text()
    head, _, _ = script.partition("    batch = torch.export.Dim")
    samples = '    np.savez("outputs/validation_samples.npz", input=points.numpy(), labels=labels.numpy())\n'
    (linear_project / "train.py").write_text(f'{head}    torch.save(model.state_dict(), "outputs/model.pt")\n{samples}')
    (linear_project / "factory.py").write_text(FACTORY)
    settings = {
        "export": OnnxExport(module="factory:linear"),
        "validation": OrtValidation(champion_margin=1.0, min_metrics={"accuracy": 0.5}),
    }
    first = run_pipeline(**settings)
    assert that_ran(first) == STAGES
    assert "passed" in Path(first.report_path).read_text()
    assert that_ran(run_pipeline(**settings)) == []
    second = run_pipeline({"--seed": 7}, **settings)
    assert that_ran(second) == ["train", "metrics", "export", "validate", "register"]
    assert "version 1" in Path(second.report_path).read_text()
    store = ArtifactStore(Settings().store_url)
    assert champion_of(store, "linear") == 2
    assert "compared it with version 1" in list_moves(store, "linear")[-1].reason
    assert that_ran(run_pipeline({"--seed": 7}, **settings)) == []  # it is the champion now, and nothing is asked anew
