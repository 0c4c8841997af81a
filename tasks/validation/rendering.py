"""The validation report as markdown, for the Prefect UI and for people."""

from trainyard.tasks.validation.figures import Check
from trainyard.tasks.validation.report import ValidationReport


def render_markdown(report: ValidationReport) -> str:
    """Verdict, checks, and the figures as tables."""
    verdict = "passed" if report.passed else f"FAILED ({len(report.failures)} of {len(report.checks)} checks)"
    parts = [f"# Validation {verdict}", _subject(report), _checks(report.checks), _parity(report)]
    if report.samples.labelled:
        parts.append(_quality(report))
    if report.champion:
        parts.append(_champion(report))
    if report.latency:
        parts.append(_latency(report))
    if report.footprint:
        parts.append(_footprint(report))
    if report.attempts:
        parts.append(_attempts(report))
    return "\n\n".join(parts) + "\n"


def _subject(report: ValidationReport) -> str:
    used = report.samples
    samples = (
        f"{used.num_samples:,} of the run's {used.num_available:,} held-out samples"
        if used.source == "run"
        else f"**{used.num_samples:,} random inputs** (seed {used.seed}): the run left no samples"
    )
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return (
        f"`{report.model_file}` against its ONNX model (`{report.bundle_sha256[:12]}`, "
        f"{report.model_num_bytes:,} bytes) on {samples}, batch sizes "
        f"{', '.join(map(str, report.batch_sizes))}. Tolerance: {report.tolerance}. {versions}."
    )


def _checks(checks: tuple[Check, ...]) -> str:
    rows = [[("passed" if c.passed else "**FAILED**"), c.name, c.expected, c.found] for c in checks]
    return "## Checks\n\n" + _table(["verdict", "check", "expected", "found"], rows)


def _parity(report: ValidationReport) -> str:
    header = ["provider", "batch", "output", "max abs", "mean abs", "max rel", "mean rel", "worst sample"]
    rows = [
        [
            entry.provider,
            str(entry.batch_size) + "".join(f", {axis} {size}" for axis, size in entry.sizes.items()),
            entry.output,
            f"{entry.max_abs_error:.2e}",
            f"{entry.mean_abs_error:.2e}",
            f"{entry.max_rel_error:.2e}",
            f"{entry.mean_rel_error:.2e}",
            "" if entry.worst_sample is None else str(entry.worst_sample),
        ]
        for entry in report.parity
    ]
    return f"## Differences\n\n{_tolerances(report)}\n\n{_table(header, rows)}"


def _tolerances(report: ValidationReport) -> str:
    return "\n".join(f"- {t.dtype}: atol {t.atol:g}, rtol {t.rtol:g} ({t.source})" for t in report.tolerances)


def _champion(report: ValidationReport) -> str:
    rows = [
        [f"version {f.version}", f.metric, f"{f.champion:.4f}", f"{f.challenger:.4f}", "decides" if f.decides else ""]
        for f in report.champion
    ]
    return "## Champion\n\n" + _table(["champion", "metric", "champion's", "this model's", ""], rows)


def _quality(report: ValidationReport) -> str:
    if not report.quality:
        return f"## Quality\n\nNot measured: {report.quality_note or 'a runtime failed, or gave NaN or infinities'}."
    rows = [
        [
            f.provider,
            f.metric,
            f"{f.torch:.4f}",
            f"{f.onnxruntime:.4f}",
            f"{f.difference:+.2e}",
            f"{f.num_samples:,}",
        ]
        for f in report.quality
    ]
    table = _table(["provider", "metric", "torch", "onnx", "difference", "samples"], rows)
    return f"## Quality ({report.problem})\n\n{table}{_spread(report)}"


def _spread(report: ValidationReport) -> str:
    if report.regression is None:
        return ""
    off = report.regression
    return (
        f"\n\nDifferences of {off.num_values:,} values from their labels: mean {off.bias:+.4g}; absolute: median "
        f"{off.p50_abs:.4g}, p95 {off.p95_abs:.4g}, largest {off.max_abs:.4g}."
    )


def _latency(report: ValidationReport) -> str:
    rows = [
        [
            entry.provider,
            str(entry.batch_size),
            f"{entry.onnxruntime_p50_ms:.3f} / {entry.onnxruntime_p95_ms:.3f}",
            f"{entry.torch_p50_ms:.3f} / {entry.torch_p95_ms:.3f}",
            " / ".join(f"{rate:,.0f}" for rate in entry.samples_per_second),
        ]
        for entry in report.latency
    ]
    header = ["provider", "batch", "ONNX Runtime", "torch", "samples/s, ONNX Runtime / torch"]
    return "## Latency (ms, p50 / p95)\n\n" + _table(header, rows)


def _footprint(report: ValidationReport) -> str:
    rows = [
        [
            cost.provider,
            f"{cost.load_ms:.1f}",
            f"{cost.peak_num_bytes:,}",
            ", ".join(f"{count} in {name}" for name, count in cost.nodes.items()),
        ]
        for cost in report.footprint
    ]
    return "## Session\n\n" + _table(["provider", "load (ms)", "peak memory (bytes)", "nodes"], rows)


def _attempts(report: ValidationReport) -> str:
    rows = [["failed" if a.error else "used", a.description, a.error or ""] for a in report.attempts]
    return "## Export\n\n" + _table(["", "way", "why it failed"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in line)} |" for line in lines)
