"""The summary that ends a run in the terminal."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainyard.tasks.specs.results import PipelineResult, StageOutcome, ValidationSummary


def render_summary(result: PipelineResult) -> RenderableType:
    """Stages, metrics, model, verdict and run, for people; print it with ``soft_wrap=True``, to keep paths whole."""
    lines = [_line("metrics", _metrics(result.metrics))]
    if result.onnx_path:
        lines.append(_line("ONNX model", result.onnx_path))
    if result.validation:
        lines.append(_line("validation", _verdict(result.validation)))
    if result.report_path:
        lines.append(_line("report", result.report_path))
    if result.model_uri:
        lines.append(_line("registered", result.model_uri))
    lines.append(_line("Prefect run", result.run_url or result.run_id))
    return Group(_stages(result.stages.values()), *lines)


def _line(label: str, value: str | Text) -> Text:
    return Text.assemble((f"{label:<13}", "dim"), value)


def _stages(outcomes: Iterable[StageOutcome]) -> Table:
    table = Table(title="Training pipeline", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("status")
    for name in ("seconds", "attempts", "size"):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        style = "green" if outcome.status == "cached" else "bold"
        table.add_row(
            outcome.stage,
            Text(outcome.status, style=style),
            f"{outcome.seconds:.2f}",
            str(outcome.attempts),
            format_bytes(outcome.num_bytes),
        )
    return table


def _metrics(metrics: dict[str, float]) -> str:
    return " · ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "none logged"


def _verdict(validation: ValidationSummary) -> Text:
    word, style = ("passed", "bold green") if validation.passed else ("FAILED", "bold red")
    agreement = "" if validation.agreement is None else f" · label agreement {validation.agreement:.2%}"
    quality = "".join(f" · {name} {value:.4f}" for name, value in sorted(validation.deciding_metrics.items()))
    latency = "" if validation.latency_ms is None else f" · {validation.latency_ms:.3f} ms a sample"
    return Text.assemble(
        (word, style),
        f" · max |error| {validation.max_abs_error:.3g} (relative {validation.max_rel_error:.3g})"
        f" over {validation.num_samples:,} samples{agreement}{quality}{latency}",
    )


def format_bytes(num_bytes: float) -> str:
    """A size for people, in units of 1024: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
