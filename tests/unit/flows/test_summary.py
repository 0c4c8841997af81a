from rich.console import Console

from trainyard.flows.summary import format_bytes, render_summary
from trainyard.tasks.specs.results import PipelineResult, StageOutcome, ValidationSummary


def test_the_summary_says_what_a_reader_wants_to_know():
    result = PipelineResult(
        run_id="9f2c",
        run_url="http://127.0.0.1:4200/runs/flow-run/9f2c",
        metrics={"accuracy": 0.9875, "loss": 0.041},
        stages={
            "stage": StageOutcome(stage="stage", status="cached", attempts=1, seconds=0.05, num_bytes=460_000),
            "train": StageOutcome(stage="train", status="ran", attempts=3, seconds=61.234, num_bytes=12),
        },
        model_uri="file:///store/models/digits/4",
        onnx_path="/home/me/model.onnx",
        validation=ValidationSummary(
            passed=True,
            max_abs_error=3.2e-6,
            max_rel_error=1e-4,
            agreement=1.0,
            num_samples=359,
            latency_ms=0.013,
            metrics={"accuracy": 0.9875, "log_loss": 0.25},
            compared_by=("accuracy",),
        ),
    )
    console = Console(width=60, record=True)
    console.print(render_summary(result), soft_wrap=True)
    text = console.export_text()
    for part in (
        "cached",
        "61.23",
        "449.2 KiB",
        "accuracy 0.9875",
        "/home/me/model.onnx",
        "passed",
        "3.2e-06",
        "359 samples",
        "file:///store/models/digits/4",
        "http://127.0.0.1:4200/runs/flow-run/9f2c",
    ):
        assert part in text
    assert "log_loss" not in text  # the report has them all


def test_sizes_for_people():
    assert [format_bytes(n) for n in (0, 1023, 1536, 3 * 1024**4)] == ["0 B", "1023 B", "1.5 KiB", "3.0 TiB"]
