"""The metrics report: everything that the ranks logged, as one value."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from pydantic import Field

from trainyard.tasks.metrics.reading import RankRecords, Record
from trainyard.tasks.runtime.live import SAMPLES_PER_SECOND
from trainyard.tasks.specs.spec import Spec


class Series(Spec):
    """One metric of one rank over time."""

    name: str
    """The metric."""

    rank: int
    """The rank that logged it."""

    steps: tuple[int, ...]
    """As logged; counted from 0 where the script gave none."""

    values: tuple[float, ...]
    """As logged; NaN and infinities are strings in JSON."""

    times_s: tuple[float, ...]
    """Seconds since the first record of the run."""


class RankSummary(Spec):
    """One rank."""

    rank: int
    """The rank."""

    local_rank: int | None
    """Its rank on its host."""

    host: str | None
    """The host it ran on."""

    num_records: int
    """Records that it logged."""

    device: str | None = None
    """What it computed on, ``cpu`` or ``cuda:1``; None where it did not come to its end."""

    device_model: str | None = None
    """The name of that CPU or GPU."""

    num_threads: int | None = None
    """Threads that torch computes with, or the value of ``OMP_NUM_THREADS``."""

    samples_per_second: float | None
    """Median of what it logged under this name."""


class Table(Spec):
    """Rows that were logged under one name, by all ranks, in the order of the ranks."""

    name: str
    """The table."""

    rows: tuple[dict[str, Any], ...]
    """Column to cell."""


class LoggedValue(Spec):
    """Something else that was logged."""

    kind: str
    """``list``, ``image`` or ``confusion_matrix``."""

    name: str
    """Its name."""

    rank: int
    """The rank that logged it."""

    value: Any
    """As in the record; for an image, its path below ``outputs/``."""


class MetricsReport(Spec):
    """What a training run logged."""

    finals: dict[str, float]
    """Last value of every metric that rank 0 logged."""

    world_size: int
    """Number of ranks, as they saw it themselves; else the number that left records."""

    samples_per_second: float | None
    """Sum of the ranks' medians, where every rank that left records logged it."""

    ranks: tuple[RankSummary, ...]
    """One a rank, by rank."""

    series: tuple[Series, ...]
    """By rank, then in the order in which the metrics appeared."""

    tables: tuple[Table, ...] = ()
    """Tables, whether logged whole or by rows."""

    values: tuple[LoggedValue, ...] = ()
    """Lists, images and confusion matrices."""

    tags: dict[str, str | None] = Field(default_factory=dict)
    """Tags; where ranks differ, the lowest rank's."""

    notes: tuple[str, ...] = ()
    """What a reader should know: ranks without records, cut files, plots left out."""


def build_report(ranks: Sequence[RankRecords]) -> MetricsReport:
    """Put the ranks' records together; a pure function of them.

    Numbers of different ranks are never averaged: throughput is added up, everything else stands for its rank.
    """
    start = min((float(record["time"]) for rank in ranks for record in _timed(rank)), default=0.0)
    series = [each for rank in ranks for each in _series(rank, start)]
    summaries = tuple(_summary(rank, series) for rank in ranks)
    world_size = max((int(rank.description.get("world_size", 1)) for rank in ranks), default=0)
    return MetricsReport(
        finals={each.name: each.values[-1] for each in series if each.rank == 0},
        world_size=max(world_size, len(ranks)),
        samples_per_second=_total(summary.samples_per_second for summary in summaries),
        ranks=summaries,
        series=tuple(series),
        tables=_tables(ranks),
        values=tuple(_values(ranks)),
        tags={record["name"]: record["value"] for rank in reversed(ranks) for record in _of(rank, "tag")},
        notes=tuple(_notes(ranks, world_size, has_metrics=bool(series))),
    )


def _timed(rank: RankRecords) -> tuple[Record, ...]:
    return (rank.description, *rank.records) if rank.description else rank.records


def _of(rank: RankRecords, *kinds: str) -> list[Record]:
    return [record for record in rank.records if record["kind"] in kinds]


def _series(rank: RankRecords, start: float) -> list[Series]:
    by_name: dict[str, list[Record]] = {}
    for record in _of(rank, "scalar"):
        by_name.setdefault(record["name"], []).append(record)
    return [
        Series(
            name=name,
            rank=rank.rank,
            steps=tuple(_step(record, position) for position, record in enumerate(records)),
            values=tuple(float(record["value"]) for record in records),
            times_s=tuple(round(float(record["time"]) - start, 6) for record in records),
        )
        for name, records in by_name.items()
    ]


def _step(record: Record, position: int) -> int:
    step = record.get("step")
    return position if step is None else int(step)


def _summary(rank: RankRecords, series: Iterable[Series]) -> RankSummary:
    rates = [s.values for s in series if s.rank == rank.rank and s.name == SAMPLES_PER_SECOND]
    devices = [record["value"] for record in _of(rank, "device")]
    device = devices[-1] if devices else {}
    return RankSummary(
        rank=rank.rank,
        local_rank=rank.description.get("local_rank"),
        host=rank.description.get("host"),
        num_records=len(rank.records) - len(devices),
        device=device.get("device"),
        device_model=device.get("model"),
        num_threads=device.get("num_threads"),
        samples_per_second=median(rates[0]) if rates else None,
    )


def _total(rates: Iterable[float | None]) -> float | None:
    """The sum, or None where one is missing: a part would read like the whole."""
    known = list(rates)
    present = [rate for rate in known if rate is not None]
    return sum(present) if present and len(present) == len(known) else None


def _tables(ranks: Iterable[RankRecords]) -> tuple[Table, ...]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for rank in ranks:
        for record in _of(rank, "row", "table"):
            rows.setdefault(record["name"], []).extend(_rows(record))
    return tuple(Table(name=name, rows=tuple(found)) for name, found in rows.items())


def _rows(record: Record) -> list[dict[str, Any]]:
    if record["kind"] == "row":
        return [record["value"]]
    columns: dict[str, list[Any]] = record["value"]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _values(ranks: Iterable[RankRecords]) -> Iterable[LoggedValue]:
    for rank in ranks:
        for record in _of(rank, "list", "image", "confusion_matrix"):
            yield LoggedValue(kind=record["kind"], name=record["name"], rank=rank.rank, value=record["value"])


def _notes(ranks: Sequence[RankRecords], world_size: int, has_metrics: bool) -> Iterable[str]:
    if not has_metrics:
        yield (
            "The training script logged no metrics: to have some, call "
            "trainyard.Run.get_context().log(name, value) in it."
        )
    if len(ranks) < world_size:
        yield f"{len(ranks)} of {world_size} ranks left records."
    for rank in ranks:
        if rank.is_cut:
            yield f"Rank {rank.rank} was stopped while writing: its last record is cut and left out."
