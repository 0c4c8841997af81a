"""The summary of a run in Prefect's UI, for whoever decides about the model."""

from collections.abc import Iterable

from prefect.artifacts import create_markdown_artifact

from trainyard.flows.summary import format_bytes
from trainyard.tasks.publishing import best_effort
from trainyard.tasks.specs.results import PipelineResult, StageOutcome, ValidationSummary

KEY = "training-summary"


def publish_summary(result: PipelineResult, model_name: str) -> None:
    """Put it on the run's page; where Prefect cannot take it, the run goes on."""
    with best_effort("the summary"):
        create_markdown_artifact(render_markdown(result, model_name), key=KEY, description=f"Summary of {model_name}")


def render_markdown(result: PipelineResult, model_name: str) -> str:
    """What became of the model, its figures, and where everything is."""
    lines = [f"# {model_name}: {_headline(result)}", ""]
    if result.validation:
        lines += [_validation(result.validation), ""]
    lines += ["| metric | final value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in sorted(result.metrics.items())]
    if result.model_uri:
        lines += ["", f"Registered as `{result.model_uri}`"]
    if result.onnx_path:
        lines += ["", f"ONNX model on the machine that ran the pipeline: `{result.onnx_path}`"]
    if result.run_url:
        lines += ["", f"[Logs and all stages]({result.run_url})"]
    return "\n".join([*lines, "", *_stages(result.stages.values())]) + "\n"


def _headline(result: PipelineResult) -> str:
    if result.model_uri:
        return "validated and registered"
    return "trained, not exported" if result.validation is None else "validated"


def _validation(validation: ValidationSummary) -> str:
    agreement = "" if validation.agreement is None else f", same class for {validation.agreement:.2%}"
    quality = "".join(f", {name} {value:.4f}" for name, value in sorted(validation.metrics.items()))
    return (
        f"ONNX Runtime gives the trained model's answers on {validation.num_samples:,} samples: largest difference "
        f"{validation.max_abs_error:.3g}{agreement}{quality}."
    )


def _stages(outcomes: Iterable[StageOutcome]) -> list[str]:
    rows = [
        f"| {outcome.stage} | {outcome.status} | {outcome.seconds:.1f} | {outcome.attempts} | "
        f"{format_bytes(outcome.num_bytes)} |"
        for outcome in outcomes
    ]
    return ["| stage | | seconds | attempts | size |", "|---|---|---|---|---|", *rows]
