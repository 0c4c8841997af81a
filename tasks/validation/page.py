"""The validation report as one HTML file that needs nothing else: no script, no font, no network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from trainyard.tasks.validation.charts import (
    confusion_chart,
    coverage_chart,
    latency_chart,
    parity_chart,
    regression_chart,
    training_chart,
)
from trainyard.tasks.validation.curves import Curves
from trainyard.tasks.validation.figures import TOLERANCE_RULE, Check, Latency, WorstSample
from trainyard.tasks.validation.page_style import STYLE
from trainyard.tasks.validation.report import ValidationReport


def render_page(
    report: ValidationReport, curves: Curves | None = None, pictures: Mapping[int, str] | None = None
) -> str:
    """The whole page.

    Args:
        report: The figures.
        curves: The training run's metrics.
        pictures: Images of the worst samples as data URIs, by index.
    """
    title = f"Validation of {report.model_file}"
    sections = [
        _section("Checks", _checks(report.checks)),
        _section("Differences", _differences(report)),
        _section("Quality on held-out labels", _quality(report)),
        _section("Samples that differ most", _worst(report, pictures or {})),
        _section("Speed and size", _speed(report)),
        _section("Training", _chart(training_chart(curves)) if curves else ""),
        _section("How it was exported", _attempts(report)),
        _section("What was compared", _subject(report)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><main>{_head(report)}{''.join(sections)}</main></body></html>\n"
    )


def _head(report: ValidationReport) -> str:
    word, kind = ("passed", "good") if report.passed else ("failed", "bad")
    count = (
        f"{len(report.checks)} checks" if report.passed else f"{len(report.failures)} of {len(report.checks)} checks"
    )
    return (
        f'<header><p class="kicker">ONNX Runtime against torch</p><h1>{escape(report.model_file)} '
        f'<span class="badge {kind}">{word}</span></h1><p class="lead">{count} {word} over '
        f'{report.samples.num_samples:,} samples.</p><div class="cards">{"".join(_cards(report))}</div></header>'
    )


def _cards(report: ValidationReport) -> Iterable[str]:
    summary = report.summary()
    if report.parity:
        yield _card("largest error", f"{summary.max_abs_error:.2g}", f"relative {summary.max_rel_error:.2g}")
    if summary.agreement is not None:
        yield _card("same class", f"{summary.agreement:.2%}", "of samples in both runtimes")
    shown = report.settings.compared_metrics(report.problem) if report.problem else ()
    for figure in [figure for figure in report.quality if figure.metric in shown][:1]:
        yield _card(figure.metric, f"{figure.onnxruntime:.4g}", f"torch {figure.torch:.4g}")
    if report.latency:
        entry = report.latency[0]
        faster = entry.torch_p50_ms / entry.onnxruntime_p50_ms
        yield _card(
            f"batch {entry.batch_size}", f"{entry.onnxruntime_p50_ms:.2f} ms", f"{faster:.1f} times torch's speed"
        )
    yield _card("model", _size(report.model_num_bytes), report.bundle_sha256[:12])


def _card(label: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><span class="label">{escape(label)}</span><strong>{escape(value)}</strong>'
        f"<small>{escape(note)}</small></div>"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _checks(checks: Sequence[Check]) -> str:
    """Failed checks first and open; a long list of passed ones is folded."""
    failed, passed = [c for c in checks if not c.passed], [c for c in checks if c.passed]
    header = ["", "check", "expected", "found"]
    shown = _table(header, [_check_row(check) for check in failed], "checks") if failed else ""
    folded = _table(header, [_check_row(check) for check in passed], "checks") if passed else ""
    return f"{shown}<details><summary>{len(passed)} passed</summary>{folded}</details>"


def _check_row(check: Check) -> list[str]:
    texts = (escape(text) for text in (check.name, check.expected, check.found))
    return [_mark(check.passed, "passed", "failed"), *texts]


def _mark(is_good: bool, good: str, bad: str) -> str:
    return f'<span class="badge {"good" if is_good else "bad"}">{good if is_good else bad}</span>'


def _differences(report: ValidationReport) -> str:
    if not report.parity:
        return ""
    header = ["provider", "batch", "output", "max abs", "mean abs", "max rel", "mean rel", "worst sample"]
    rows = [
        [
            _provider(entry.provider),
            escape(f"{entry.batch_size}" + "".join(f", {axis} {size}" for axis, size in entry.sizes.items())),
            escape(entry.output),
            f"{entry.max_abs_error:.2e}",
            f"{entry.mean_abs_error:.2e}",
            f"{entry.max_rel_error:.2e}",
            f"{entry.mean_rel_error:.2e}",
            "&#8211;" if entry.worst_sample is None else str(entry.worst_sample),
        ]
        for entry in report.parity
    ]
    rules = "".join(
        f"<li><b>{escape(t.dtype)}</b>: atol {t.atol:g}, rtol {t.rtol:g} — {escape(t.source)}</li>"
        for t in report.tolerances
    )
    note = f'<p class="note">Allowed: {escape(TOLERANCE_RULE)}.</p><ul class="note">{rules}</ul>'
    caption = "Values by absolute error; orange ones are beyond the absolute tolerance alone."
    chart = _chart(parity_chart(report.parity, report.tolerances), caption)
    return f'<div class="columns">{chart}<div>{note}</div></div>{_table(header, rows)}'


def _quality(report: ValidationReport) -> str:
    if not report.quality:
        why = report.quality_note or "a runtime failed, or gave NaN or infinities"
        return f'<p class="note">Not measured: {escape(why)}.</p>' if report.samples.labelled else ""
    rows = [
        [_provider(f.provider), escape(f.metric), f"{f.torch:.4f}", f"{f.onnxruntime:.4f}", f"{f.difference:+.2e}"]
        for f in report.quality
    ]
    body = _table(["provider", "metric", "torch", "ONNX Runtime", "difference"], rows)
    if report.champion:
        compared = [
            [
                f"version {f.version}",
                escape(f.metric),
                f"{f.champion:.4f}",
                f"{f.challenger:.4f}",
                "decides" if f.decides else "",
            ]
            for f in report.champion
        ]
        body += _table(["champion", "metric", "champion", "this model", ""], compared)
    return f'{body}<div class="columns">{_quality_charts(report)}</div>'


def _quality_charts(report: ValidationReport) -> str:
    charts = ""
    if report.classification is not None:
        if report.classification.matrix:
            charts = _chart(confusion_chart(report.classification, report.labels), "Confusion matrix.")
        caption = f"Sure answers should be right answers. Scores were read as {report.classification.scores_are}."
        charts += _chart(coverage_chart(report.classification), caption)
    if report.regression is not None:
        off = report.regression
        caption = (
            f"Of {off.num_values:,} values: mean difference {off.bias:+.4g}; absolute differences: median "
            f"{off.p50_abs:.4g}, p95 {off.p95_abs:.4g}, largest {off.max_abs:.4g}."
        )
        charts += _chart(regression_chart(off), caption)
    return charts


def _worst(report: ValidationReport, pictures: Mapping[int, str]) -> str:
    worst: dict[tuple[str, int], WorstSample] = {}
    for sample in sorted((s for entry in report.parity for s in entry.worst), key=lambda s: -s.max_abs_error):
        worst.setdefault((sample.output, sample.index), sample)
    if not worst:
        return ""
    figures = []
    for sample in list(worst.values())[:8]:
        source = pictures.get(sample.index)
        image = f'<img src="{source}" alt="sample {sample.index}">' if source else ""
        figures.append(
            f'<figure class="sample">{image}<figcaption><b>#{sample.index}</b> {escape(sample.output)}<br>error '
            f"{sample.max_abs_error:.2e}{_classes(sample, report.labels)}</figcaption></figure>"
        )
    return f'<div class="samples">{"".join(figures)}</div>'


def _classes(sample: WorstSample, labels: Sequence[str]) -> str:
    def name(number: int) -> str:
        return escape(labels[number] if 0 <= number < len(labels) else str(number))

    if sample.torch_class is None or sample.onnx_class is None:
        return ""
    text = f"<br>torch {name(sample.torch_class)}, ONNX {name(sample.onnx_class)}"
    return text + (f", true {name(sample.label)}" if sample.label is not None else "")


def _speed(report: ValidationReport) -> str:
    if not report.latency:
        return ""
    header = [
        "provider",
        "batch",
        "ONNX p50",
        "ONNX p95",
        "torch p50",
        "torch p95",
        "ONNX samples/s",
        "torch samples/s",
    ]
    rows = [_latency_row(entry) for entry in report.latency]
    costs = [
        [
            _provider(cost.provider),
            f"{cost.load_ms:.1f} ms",
            _size(cost.peak_num_bytes) if cost.peak_num_bytes else "&#8211;",
            ", ".join(f"{count} in {_provider(name)}" for name, count in cost.nodes.items()),
        ]
        for cost in report.footprint
    ]
    table = _table(["provider", "session load", "peak memory", "nodes"], costs) if costs else ""
    chart = _chart(latency_chart(report.latency), "Milliseconds a call.")
    return f'<div class="columns">{chart}<div>{table}</div></div>{_table(header, rows)}'


def _latency_row(entry: Latency) -> list[str]:
    onnx, torch = entry.samples_per_second
    times = (entry.onnxruntime_p50_ms, entry.onnxruntime_p95_ms, entry.torch_p50_ms, entry.torch_p95_ms)
    return [
        _provider(entry.provider),
        str(entry.batch_size),
        *(f"{ms:.3f} ms" for ms in times),
        f"{onnx:,.0f}",
        f"{torch:,.0f}",
    ]


def _attempts(report: ValidationReport) -> str:
    rows = [
        [_mark(attempt.error is None, "used", "failed"), escape(attempt.description), escape(attempt.error or "")]
        for attempt in report.attempts
    ]
    return _table(["", "way", "why it failed"], rows, "checks") if rows else ""


def _provider(name: str) -> str:
    return escape(name.removesuffix("ExecutionProvider"))


def _subject(report: ValidationReport) -> str:
    used = report.samples
    source = (
        f"{used.num_samples:,} of the run's {used.num_available:,} held-out samples"
        if used.source == "run"
        else f"{used.num_samples:,} random inputs (seed {used.seed}), as the run left no samples"
    )
    facts = {
        "Samples": source + (", labelled" if used.labelled else ""),
        "Batch sizes": ", ".join(map(str, report.batch_sizes)),
        "Providers": ", ".join(report.settings.providers),
        "Bundle": report.bundle_sha256,
        "Training outputs": report.outputs_sha256,
        "Versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"


def _chart(svg: str, caption: str = "") -> str:
    return f'<figure class="chart">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells of rows are HTML already."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
