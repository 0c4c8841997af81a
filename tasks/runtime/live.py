"""What training has logged so far, read while it runs: for the line in the terminal and the progress bar."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainyard.tasks.runtime.records import parse_lines

EPOCH = "epoch"
PROGRESS = "progress"
SAMPLES_PER_SECOND = "samples_per_second"
SHOWN_APART = (EPOCH, PROGRESS, SAMPLES_PER_SECOND)
"""Metrics that say how far and how fast training is, not how well it goes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's newest value on one rank."""

    value: float
    step: int | None
    time: float
    position: int = 0
    """How many values of the metric the rank had logged before it."""


@dataclass(slots=True)
class LatestMetrics:
    """The newest values, by metric (in the order in which metrics appeared) and rank."""

    samples: dict[str, dict[int, Sample]] = field(default_factory=dict)

    def of_first_rank(self, name: str) -> Sample | None:
        """A metric's newest value on the lowest rank that logs it; None where nobody does."""
        by_rank = self.samples.get(name)
        return by_rank[min(by_rank)] if by_rank else None

    @property
    def progress(self) -> float | None:
        """The fraction done, 0 to 1, where the script logs ``progress``; not a number is none."""
        sample = self.of_first_rank(PROGRESS)
        return None if sample is None or math.isnan(sample.value) else min(max(sample.value, 0.0), 1.0)

    @property
    def samples_per_second(self) -> float | None:
        """Throughput of all ranks together, where they log it."""
        by_rank = self.samples.get(SAMPLES_PER_SECOND)
        return sum(sample.value for sample in by_rank.values()) if by_rank else None


class MetricsTail:
    """Follows the records of all ranks as they are written.

    Ranks' files may appear at any time, and end in half a line. A file that holds something else than records
    is not followed further: showing progress must not stop training, and the metrics stage names the line.

    Args:
        directory: The directory of the records; need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self.latest = LatestMetrics()
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._unreadable: set[Path] = set()

    def poll(self) -> bool:
        """Read what was written since the last call; whether there was any new value."""
        changed = False
        for path in sorted(self._directory.glob("rank-*.jsonl")):
            if path not in self._unreadable:
                changed |= self._follow(path)
        return changed

    def _follow(self, path: Path) -> bool:
        offset = self._offsets.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(offset)
            chunk = stream.read()
        try:
            records, num_bytes = parse_lines(chunk)
            new = [(str(record["name"]), _sample(record)) for record in records if record["kind"] == "scalar"]
        except (ValueError, TypeError, KeyError, OverflowError):
            self._unreadable.add(path)
            return False
        self._offsets[path] = offset + num_bytes
        rank = int(path.stem.removeprefix("rank-"))
        for name, sample in new:
            by_rank = self.latest.samples.setdefault(name, {})
            position = by_rank[rank].position + 1 if rank in by_rank else 0
            by_rank[rank] = replace(sample, position=position)
        return bool(new)


def _sample(record: dict[str, Any]) -> Sample:
    step = record.get("step")
    return Sample(float(record["value"]), None if step is None else int(step), float(record["time"]))


def progress_line(latest: LatestMetrics, max_metrics: int = 4) -> str:
    """One line for people, for example ``epoch 3 · loss 0.123 · accuracy 0.957 · 5,210 samples/s (2 ranks)``.

    Args:
        latest: The newest values.
        max_metrics: At most this many metrics, in the order in which they appeared.
    """
    shown = [name for name in latest.samples if name not in SHOWN_APART][:max_metrics]
    newest = ((name, latest.of_first_rank(name)) for name in shown)
    metrics = [f"{name} {format_value(sample.value)}" for name, sample in newest if sample is not None]
    return " · ".join([*_position(latest, shown), *metrics, *_throughput(latest)])


def _position(latest: LatestMetrics, shown: list[str]) -> list[str]:
    """How far training is: the epoch, else the largest step."""
    epoch = latest.of_first_rank(EPOCH)
    if epoch is not None:
        return [f"epoch {format_value(epoch.value)}"]
    samples = (sample for name in shown for sample in latest.samples[name].values())
    steps = [sample.step for sample in samples if sample.step is not None]
    return [f"step {max(steps):,}"] if steps else []


def _throughput(latest: LatestMetrics) -> list[str]:
    rate = latest.samples_per_second
    if rate is None:
        return []
    num_ranks = len(latest.samples[SAMPLES_PER_SECOND])
    return [f"{rate:,.0f} samples/s ({num_ranks} {'rank' if num_ranks == 1 else 'ranks'})"]


def format_value(value: float) -> str:
    """A metric's value in few characters: ``3``, ``0.957``, ``8,143.2``, ``0.0002``, ``1e+300``, ``nan``."""
    if not 0.01 <= abs(value) < 1e15:
        return f"{value:.3g}"
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
