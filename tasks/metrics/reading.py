"""Reading the ranks' metric records (the format is in ``trainyard.tasks.runtime.records``), strictly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.tasks.errors import MetricsError
from trainyard.tasks.runtime.records import parse_lines

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RankRecords:
    """What one rank left.

    Args:
        rank: The rank.
        description: Its first record of the kind ``rank``; empty where there is none.
        records: Everything that it logged, in order.
        is_cut: Whether the file ends within a line, as after a kill.
    """

    rank: int
    description: Record
    records: tuple[Record, ...]
    is_cut: bool


def read_ranks(directory: Path) -> list[RankRecords]:
    """Read every rank's file of a directory.

    Returns:
        One value a rank, by rank.

    Raises:
        MetricsError: A line is not a metric record; names the file and the line.
    """
    return [read_rank(path.name, path.read_bytes()) for path in sorted(directory.glob("rank-*.jsonl"))]


def read_rank(name: str, data: bytes) -> RankRecords:
    """Read one rank's file.

    Args:
        name: The file's name, ``rank-00000.jsonl``.
        data: Its content. Half a last line is passed over.

    Raises:
        MetricsError: A line is not a metric record; names the file and the line.
    """
    lines = data.splitlines(keepends=True)
    is_cut = bool(lines) and not lines[-1].endswith(b"\n")
    whole = lines[:-1] if is_cut else lines
    records = [_read_line(name, number, line) for number, line in enumerate(whole, 1) if line.strip()]
    descriptions = [record for record in records if record["kind"] == "rank"]
    logged = tuple(record for record in records if record["kind"] != "rank")
    return RankRecords(_rank_of(name), descriptions[0] if descriptions else {}, logged, is_cut)


def _rank_of(name: str) -> int:
    digits = name.removeprefix("rank-").removesuffix(".jsonl")
    if not digits.isdecimal():
        raise MetricsError(f"Metric records: expected files named rank-00000.jsonl, got {name!r}.")
    return int(digits)


def _read_line(name: str, number: int, line: bytes) -> Record:
    try:
        (record,) = parse_lines(line)[0]
        _check(record)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise MetricsError(
            f"Metric records: {name}, line {number} is not a record ({type(error).__name__}: {error}). "
            f"It reads {line[:200].decode(errors='replace')!r}. Metrics are written by trainyard.Run; "
            "if the script writes this file by other means, it must not."
        ) from error
    return record


def _check(record: Record) -> None:
    """Raise one of the errors that ``_read_line`` tells of where a record is not what its kind promises."""
    kind = record["kind"]
    if kind not in _VALUE_CHECKS:
        raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(_VALUE_CHECKS)}")
    float(record["time"])
    if kind != "rank":
        _expect(record["name"], str)
        _VALUE_CHECKS[kind](record["value"])
    if record.get("step") is not None:
        _expect(record["step"], int)
        float(record["step"])


def _expect(value: Any, *types: type) -> None:
    if not isinstance(value, types):
        raise TypeError(f"expected {' or '.join(t.__name__ for t in types)}, got {value!r}")


def _check_number(value: Any) -> None:
    _expect(value, int, float, str)
    float(value)


def _check_table(value: Any) -> None:
    _expect(value, dict)
    for cells in value.values():
        _expect(cells, list)
    lengths = {len(cells) for cells in value.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of {sorted(lengths)} cells")


def _check_confusion_matrix(value: Any) -> None:
    _expect(value["matrix"], list)
    _expect(value["class_labels"], list)


_VALUE_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "rank": lambda value: None,
    "scalar": _check_number,
    "list": lambda value: _expect(value, list),
    "row": lambda value: _expect(value, dict),
    "table": _check_table,
    "image": lambda value: _expect(value, str),
    "confusion_matrix": _check_confusion_matrix,
    "device": lambda value: _expect(value, dict),
    "tag": lambda value: _expect(value, str, type(None)),
}
