"""``trainyard explain`` after real runs: it names what was changed between them, and nothing else."""

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import STAGES
from trainyard import OnnxExport, OrtValidation
from trainyard.cli import app
from trainyard.flows.explanation import explain_run
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ValidationFailedError


@pytest.fixture
def explain(home, monkeypatch):
    """The console script, in this process."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        return CliRunner().invoke(app, ["explain", *arguments])

    return run


@pytest.fixture
def why(home):
    """Stage to status and reasons, of one run."""

    def read(run_id=None):
        _, explanations = explain_run(ArtifactStore(str(home / "store")), run_id)
        return {each.note.stage: (each.note.status, each.reasons) for each in explanations}

    return read


def test_explain_names_exactly_what_changed(run_pipeline, explain, why):
    """One pipeline, changed step by step."""
    unknown = explain()
    assert unknown.exit_code == 2
    assert "holds no pipeline run" in unknown.output

    first = run_pipeline({"--seed": 3}, export=OnnxExport(opset=20))
    assert why() == {stage: ("ran", ["there is no earlier result of this stage"]) for stage in STAGES}

    second = run_pipeline({"--seed": 7}, export=OnnxExport(opset=19))
    changed = {stage: (status, reasons[:-1]) for stage, (status, reasons) in why(second.run_id).items()}
    assert changed["stage"] == ("cached", [])
    assert changed["train"] == ("ran", ["config:argument[--seed]: 3 → 7"])
    assert changed["metrics"] == ("ran", ["input:records changed"])
    assert changed["export"] == ("ran", ["config:opset: 20 → 19", "input:outputs changed"])
    assert changed["validate"] == ("ran", ["input:bundle changed", "input:curves changed", "input:outputs changed"])
    assert changed["register"][1][0] == "input:bundle changed"
    assert first.run_id[:8] in why()["export"][1][-1]

    third = run_pipeline({"--seed": 7}, export=OnnxExport(opset=19))
    reasons = why()
    assert [status for status, _ in reasons.values()] == ["cached"] * len(STAGES)
    assert all(second.run_id[:8] in text for _, (text,) in reasons.values())

    with pytest.raises(ValidationFailedError):
        impossible = OrtValidation(min_metrics={"accuracy": 1.01})
        run_pipeline({"--seed": 7}, export=OnnxExport(opset=19), validation=impossible)
    failed = why()
    assert list(failed) == STAGES[:-1]
    assert failed["validate"][0] == "unfinished"
    assert failed["validate"][1][:-1] == ['config:min_metrics: {} → {"accuracy":1.01}']

    shown = explain(second.run_id)
    assert shown.exit_code == 0, shown.output
    for words in (second.run_id, *STAGES, "hit", "miss", "config:opset: 20 → 19", "config:argument[--seed]: 3 → 7"):
        assert words in shown.output
    assert "miss" not in explain(third.run_id).output

    export_alone = explain(second.run_id, "export").output
    assert "config:opset" in export_alone
    assert "config:argument" not in export_alone
    assert "miss, unfinished" in explain("validate").output

    for arguments, words in [(["nonesuch"], "no pipeline run"), ([second.run_id, "exprot"], "the stages are")]:
        refused = explain(*arguments)
        assert refused.exit_code == 2
        assert words in refused.output
        assert "Traceback" not in refused.output
