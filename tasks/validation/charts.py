"""The charts of the report's page, as SVG."""

import io
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from trainyard.tasks.validation.curves import Curves
from trainyard.tasks.validation.figures import (
    HISTOGRAM_DECADES,
    Classification,
    Latency,
    OutputParity,
    Regression,
    Tolerance,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TORCH, ONNX, BAD, INK = "#d9822b", "#2f6fde", "#c23030", "#5c6470"
_MOST_CURVES = 8
_MOST_NAMED_CLASSES = 24
_MOST_COUNTED_CLASSES = 16


def parity_chart(entries: Sequence[OutputParity], tolerances: Sequence[Tolerance]) -> str:
    """How many values differ by how much, all outputs and batch sizes together."""
    counts = [sum(column) for column in zip(*(entry.histogram for entry in entries), strict=True)]
    names = [f"≤1e{decade}" for decade in HISTOGRAM_DECADES] + [f">1e{HISTOGRAM_DECADES[-1]}"]
    allowed = max((tolerance.atol for tolerance in tolerances), default=0)
    edges = [10.0**decade for decade in HISTOGRAM_DECADES]
    colours = [ONNX if n < len(edges) and edges[n] <= allowed * 1.001 else TORCH for n in range(len(counts))]

    def draw(axes: "Axes") -> None:
        axes.bar(names, counts, color=colours, width=0.85)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylabel("values")
        axes.set_xlabel("absolute error")
        axes.tick_params(axis="x", rotation=55)

    return _drawn(draw, (6.2, 3.1))


def confusion_chart(classification: Classification, labels: Sequence[str]) -> str:
    """The confusion matrix: a row a true class, coloured by its share of the row."""
    import numpy as np

    matrix = np.array(classification.matrix)
    size = len(matrix)
    names = [labels[n] if n < len(labels) else str(n) for n in range(size)]

    def draw(axes: "Axes") -> None:
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted (ONNX Runtime)")
        axes.set_ylabel("true")
        if size <= _MOST_NAMED_CLASSES:
            long = max(map(len, names)) > 3
            axes.set_xticks(range(size), [_plain(name) for name in names], rotation=60 if long else 0)
            axes.set_yticks(range(size), [_plain(name) for name in names])
        if size <= _MOST_COUNTED_CLASSES:
            for row, column in zip(*np.nonzero(matrix), strict=True):
                colour = "white" if shares[row, column] > 0.5 else INK
                count = matrix[row, column]
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
        axes.grid(visible=False)

    return _drawn(draw, (4.6, 4.2))


def coverage_chart(classification: Classification) -> str:
    """Accuracy on the most confident part of the samples."""

    def draw(axes: "Axes") -> None:
        axes.plot([100 * c for c in classification.coverage], classification.accuracy, color=ONNX)
        axes.set_xlabel("% of samples, the most confident first")
        axes.set_ylabel("accuracy")
        axes.set_xlim(0, 100)
        axes.set_ylim(top=1.005)

    return _drawn(draw, (4.6, 3.1))


def regression_chart(regression: Regression) -> str:
    """What was answered over what was expected; right answers lie on the line."""

    def draw(axes: "Axes") -> None:
        axes.scatter(regression.expected, regression.predicted, s=10, alpha=0.5, color=ONNX, linewidths=0)
        ends = [min(regression.expected), max(regression.expected)]
        axes.plot(ends, ends, color=INK, lw=1)
        axes.set_xlabel("label")
        axes.set_ylabel("answer (ONNX Runtime)")

    return _drawn(draw, (4.6, 4.2))


def latency_chart(entries: Sequence[Latency]) -> str:
    """Median and 95th percentile of one call, in both runtimes."""
    names = [f"{entry.provider.removesuffix('ExecutionProvider')}\nbatch {entry.batch_size}" for entry in entries]

    def draw(axes: "Axes") -> None:
        for shift, runtime, colour, p50, p95 in (
            (-0.2, "ONNX Runtime", ONNX, "onnxruntime_p50_ms", "onnxruntime_p95_ms"),
            (0.2, "torch eager", TORCH, "torch_p50_ms", "torch_p95_ms"),
        ):
            medians = [getattr(entry, p50) for entry in entries]
            tails = [max(0.0, getattr(entry, p95) - getattr(entry, p50)) for entry in entries]
            places = [n + shift for n in range(len(entries))]
            axes.bar(places, medians, 0.38, color=colour, label=runtime)
            axes.errorbar(places, medians, [[0] * len(tails), tails], fmt="none", ecolor=INK, capsize=4, lw=1)
        axes.set_xticks(range(len(entries)), names)
        axes.set_yscale("log")
        axes.set_ylabel("ms a call (line: to p95)")
        axes.legend(frameon=False)

    return _drawn(draw, (6.2, 3.1))


def training_chart(curves: Curves) -> str:
    """The run's metrics, each in a plot of its own scale."""
    from matplotlib.figure import Figure

    shown = dict(sorted(curves.items())[:_MOST_CURVES])
    columns = min(4, len(shown))
    rows = ceil(len(shown) / columns)

    def fill(figure: "Figure") -> None:
        for axes, (name, points) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, shown.items(), strict=False
        ):
            axes.plot(*zip(*points, strict=True), color=ONNX)
            axes.set_title(_plain(name), loc="left", fontsize=10)
            _tidy(axes)
        for axes in figure.axes[len(shown) :]:
            axes.set_visible(False)

    return _figure(fill, lambda: Figure(figsize=(3.0 * columns, 2.1 * rows), layout="constrained"))


def _drawn(draw: "Callable[[Axes], None]", size: tuple[float, float]) -> str:
    from matplotlib.figure import Figure

    def fill(figure: "Figure") -> None:
        axes = figure.add_subplot()
        _tidy(axes)
        draw(axes)

    return _figure(fill, lambda: Figure(figsize=size, layout="constrained"))


def _figure(fill: "Callable[[Figure], None]", make: "Callable[[], Figure]") -> str:
    """SVG that is the same for the same values: a constant salt, no date; without its prolog, for a page."""
    from matplotlib import style

    with style.context(["default", {"svg.hashsalt": "trainyard", "svg.fonttype": "none", "font.size": 9}]):
        figure = make()
        fill(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _tidy(axes: "Axes") -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
