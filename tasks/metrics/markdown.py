"""The metrics as markdown, for the pipeline's page in the Prefect UI."""

import base64
from collections.abc import Iterable, Mapping, Sequence

from trainyard.tasks.metrics.report import MetricsReport, RankSummary, Table
from trainyard.tasks.runtime.live import format_value

MAX_INLINE_BYTES = 400_000
MAX_ROWS = 50


def render_markdown(report: MetricsReport, plots: Mapping[str, bytes]) -> str:
    """Summarize a report: final values, plots, ranks, tables and notes.

    Args:
        report: The report.
        plots: File name to SVG; shown in place, in this order, until they take too much room for a page.
    """
    sections = [
        "# Metrics",
        *(f"> {note}" for note in report.notes),
        *_finals(report),
        *_pictures(plots),
        *_ranks(report),
        *(section for table in report.tables for section in _table(table)),
        *_tags(report),
    ]
    return "\n\n".join(sections) + "\n"


def _finals(report: MetricsReport) -> Iterable[str]:
    if report.finals:
        rows = [[name, format_value(value)] for name, value in report.finals.items()]
        yield _grid(["metric", "final value"], rows)


def _pictures(plots: Mapping[str, bytes]) -> Iterable[str]:
    room = MAX_INLINE_BYTES
    left_out = []
    for name, svg in plots.items():
        data = base64.b64encode(svg).decode()
        if len(data) > room:
            left_out.append(name)
            continue
        room -= len(data)
        yield f"![{_alt(name)}](data:image/svg+xml;base64,{data})"
    if left_out:
        yield f"In the store, too large for this page: {', '.join(_cell(name) for name in left_out)}."


def _alt(name: str) -> str:
    """What a plot shows: ``loss`` for ``01-loss.svg``."""
    return name.partition("-")[2].removesuffix(".svg") or name


def _ranks(report: MetricsReport) -> Iterable[str]:
    if report.ranks:
        yield "## Ranks"
        yield _grid(
            ["rank", "host", "device", "threads", "records", "samples/s (median)"],
            [
                [r.rank, r.host or "", _device(r), r.num_threads or "", r.num_records, _rate(r.samples_per_second)]
                for r in report.ranks
            ],
        )
    if report.samples_per_second is not None and len(report.ranks) > 1:
        yield f"All ranks together: {_rate(report.samples_per_second)} samples/s."


def _device(rank: RankSummary) -> str:
    return " ".join(part for part in (rank.device, rank.device_model) if part)


def _rate(samples_per_second: float | None) -> str:
    return "" if samples_per_second is None else f"{samples_per_second:,.0f}"


def _table(table: Table) -> Iterable[str]:
    columns = list(dict.fromkeys(column for row in table.rows for column in row))
    if not columns:
        return
    yield f"## {_cell(table.name)}"
    yield _grid(columns, [[row.get(column, "") for column in columns] for row in table.rows[:MAX_ROWS]])
    if len(table.rows) > MAX_ROWS:
        yield f"The first {MAX_ROWS} of {len(table.rows)} rows; all are in the report."


def _tags(report: MetricsReport) -> Iterable[str]:
    if report.tags:
        yield "## Tags"
        yield _grid(["tag", "value"], [[key, value or ""] for key, value in report.tags.items()])


def _grid(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Text that stays inside its cell; scripts choose names and words as they like."""
    text = format_value(value) if isinstance(value, float) else str(value)
    for character in "\\|`<>[]*_":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
