"""The curve of the training that runs, as an SVG small enough to be sent every few seconds."""

import base64
import math
from collections.abc import Sequence

from trainyard.tasks.runtime.live import LatestMetrics, format_value

WIDTH, HEIGHT, MARGIN = 640, 240, 36
MAX_POINTS = 400
LINE = "#1860f2"

Point = tuple[float, float]


class LiveCurve:
    """Collects one metric's values as they come: the first whose name holds ``loss``, else the first there is."""

    def __init__(self) -> None:
        self.metric: str | None = None
        self._points: list[Point] = []

    def add(self, latest: LatestMetrics) -> bool:
        """Take the newest value; whether it was a new one."""
        self.metric = self.metric or _choose(list(latest.samples))
        sample = latest.of_first_rank(self.metric) if self.metric else None
        if sample is None or not math.isfinite(sample.value):
            return False
        point = (float(len(self._points) if sample.step is None else sample.step), sample.value)
        if self._points and point[0] <= self._points[-1][0]:
            return False
        self._points.append(point)
        if len(self._points) > MAX_POINTS:
            self._points = self._points[::2]
        return True

    def markdown(self) -> str:
        """A heading with the newest value, and the curve as an image."""
        svg = base64.b64encode(draw_curve(self._points).encode()).decode()
        newest = format_value(self._points[-1][1])
        return f"### {self.metric}: {newest}\n\n![{self.metric}](data:image/svg+xml;base64,{svg})\n"


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


def _choose(names: list[str]) -> str | None:
    losses = [name for name in names if "loss" in name.lower()]
    return next(iter(losses or names), None)
