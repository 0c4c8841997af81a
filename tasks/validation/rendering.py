"""The validation report as markdown, for the Prefect UI and for people."""

from trainyard.tasks.validation.report import Check, ValidationReport


def render_markdown(report: ValidationReport) -> str:
    """Verdict, checks, and the figures as tables."""
    verdict = "passed" if report.passed else f"FAILED ({len(report.failures)} of {len(report.checks)} checks)"
    parts = [f"# Validation {verdict}", _subject(report), _checks(report.checks), _parity(report)]
    if report.quality:
        parts.append(_quality(report))
    if report.latency:
        parts.append(_latency(report))
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
            str(entry.batch_size),
            entry.output,
            f"{entry.max_abs_error:.2e}",
            f"{entry.mean_abs_error:.2e}",
            f"{entry.max_rel_error:.2e}",
            f"{entry.mean_rel_error:.2e}",
            "" if entry.worst_sample is None else str(entry.worst_sample),
        ]
        for entry in report.parity
    ]
    return "## Differences\n\n" + _table(header, rows)


def _quality(report: ValidationReport) -> str:
    rows = [
        [
            f.provider,
            f.metric,
            f"{f.torch:.4f}",
            f"{f.onnxruntime:.4f}",
            f"{f.difference:+.4f}",
            f"{f.num_samples:,}",
        ]
        for f in report.quality
    ]
    return "## Quality\n\n" + _table(["provider", "metric", "torch", "onnx", "difference", "samples"], rows)


def _latency(report: ValidationReport) -> str:
    rows = [
        [
            entry.provider,
            str(entry.batch_size),
            f"{entry.onnxruntime_p50_ms:.3f} / {entry.onnxruntime_p95_ms:.3f}",
            f"{entry.torch_p50_ms:.3f} / {entry.torch_p95_ms:.3f}",
        ]
        for entry in report.latency
    ]
    return "## Latency (ms, p50 / p95)\n\n" + _table(["provider", "batch", "ONNX Runtime", "torch"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
