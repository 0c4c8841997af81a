"""The curve of the training that runs, as an SVG small enough to be sent every few seconds."""

import base64
import math
from collections.abc import Sequence

from trainyard.tasks.runtime.live import SHOWN_APART, LatestMetrics, Sample, format_value

WIDTH, HEIGHT, MARGIN = 640, 240, 36
MAX_POINTS = 400
LINE = "#1860f2"

Point = tuple[float, float]


class LiveCurve:
    """Collects the metrics' values as they come, and shows one: a loss as soon as there is one.

    The first metric whose name holds ``loss``; else, among those that tell how well training goes, the one that is
    logged most often. All are collected: one that is chosen late has its past.
    """

    def __init__(self) -> None:
        self.metric: str | None = None
        self._curves: dict[str, _Curve] = {}

    def add(self, latest: LatestMetrics) -> bool:
        """Take the newest values; whether there is more to show than before."""
        changed = set()
        for name in latest.samples:
            sample = latest.of_first_rank(name)
            if sample is not None and self._curves.setdefault(name, _Curve()).add(sample):
                changed.add(name)
        shown, self.metric = self.metric, self._choose()
        return self.metric is not None and (self.metric != shown or self.metric in changed)

    def _choose(self) -> str | None:
        """The metric to show; of equals, the first."""
        drawable = {name: curve for name, curve in self._curves.items() if curve.points}
        return max(drawable, key=lambda name: (*_interest(name), drawable[name].num_values), default=None)

    def markdown(self) -> str:
        """A heading with the newest value, and the curve as an image; there must have been something to show."""
        points = self._curves[self.metric].points if self.metric is not None else []
        svg = base64.b64encode(draw_curve(points).encode()).decode()
        newest = format_value(points[-1][1])
        return f"### {self.metric}: {newest}\n\n![{self.metric}](data:image/svg+xml;base64,{svg})\n"


class _Curve:
    """One metric's points, every other one of them dropped where they become too many."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._newest: Sample | None = None

    @property
    def num_values(self) -> int:
        """How many were logged, though not all were seen."""
        return 0 if self._newest is None else self._newest.position + 1

    def add(self, sample: Sample) -> bool:
        """Take the newest value; whether it is a point further on. What is not finite cannot be drawn."""
        if self._newest is not None and sample.position <= self._newest.position:
            return False
        self._newest = sample
        step = float(sample.position if sample.step is None else sample.step)
        if not math.isfinite(sample.value) or (self.points and step <= self.points[-1][0]):
            return False
        self.points.append((step, sample.value))
        if len(self.points) > MAX_POINTS:
            self.points = self.points[::2]
        return True


def draw_curve(points: Sequence[Point]) -> str:
    """An SVG of a polyline with its ranges; one point is drawn as a dot.

    Args:
        points: Step and value, in the order of steps; at least one, all finite.
    """
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    placed = [
        (_place(step, steps[0], steps[-1], WIDTH), HEIGHT - _place(value, low, high, HEIGHT)) for step, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    x, y = placed[-1]
    text = 'font-family="sans-serif" font-size="12" fill="#888"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{LINE}"/>'
        f'<text x="4" y="14" {text}>{format_value(high)}</text>'
        f'<text x="4" y="{HEIGHT - 22}" {text}>{format_value(low)}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 6}" {text}>step {format_value(steps[0])}</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 6}" text-anchor="end" {text}>step {format_value(steps[-1])}</text></svg>'
    )


def _place(value: float, low: float, high: float, size: int) -> float:
    """Position of a value on an axis, inside the margins."""
    share = 0.5 if high == low else (value - low) / (high - low)
    return MARGIN + share * (size - 2 * MARGIN)


def _interest(name: str) -> tuple[bool, bool]:
    is_loss = "loss" in name.lower()
    return is_loss, name not in SHOWN_APART
