"""Metric records: one JSON object a line, one file a rank, appended while training runs.

The first line of a file describes the rank; every further line is one logged value::

    {"kind": "rank", "rank": 0, "local_rank": 0, "world_size": 2, "host": "node1", "pid": 4711, "time": 1.7e9}
    {"kind": "scalar", "name": "loss", "value": 0.31, "step": 3, "time": 1.7e9}
    {"kind": "list", "name": "scores", "value": [0.1, 0.2], "step": null, "time": 1.7e9}
    {"kind": "device", "name": "cpu", "value": {"device": "cpu", "model": "...", "num_threads": 4}, "time": 1.7e9}
    {"kind": "row" | "table" | "image" | "confusion_matrix" | "tag", "name": "...", "value": ..., ...}

Times are Unix seconds. NaN and the infinities are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which
``float`` reads back. A process that is killed may leave half a last line; readers skip it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METRICS_DIRECTORY_VARIABLE = "TRAINYARD_METRICS_DIR"


def records_file(directory: Path, rank: int) -> Path:
    """The file of one rank."""
    return directory / f"rank-{rank:05d}.jsonl"


def parse_lines(lines: bytes) -> tuple[list[dict[str, Any]], int]:
    """Parse the complete lines of a chunk of a records file.

    Args:
        lines: Bytes from a line's start on; may end within a line.

    Returns:
        The records, and how many bytes they took (the rest is half a line).

    Raises:
        ValueError: A complete line is not a JSON object with a ``kind``.
    """
    end = lines.rfind(b"\n") + 1
    records = [_parse(line) for line in lines[:end].splitlines() if line.strip()]
    return records, end


def iter_records(path: Path) -> Iterator[dict[str, Any]]:
    """All complete records of a file; raises as ``parse_lines`` does."""
    yield from parse_lines(path.read_bytes())[0]


def _parse(line: bytes) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict) or "kind" not in record:
        raise ValueError(f"not a metric record: {line[:120]!r}")
    return record
