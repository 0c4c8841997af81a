"""Curves of the metrics, as SVG that is the same for the same values."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, nan

from trainyard.tasks.metrics.report import Series
from trainyard.tasks.runtime.live import EPOCH, PROGRESS, SAMPLES_PER_SECOND

MAX_PLOTS = 24
MAX_CURVES = 12
_NOT_PLOTTED = {EPOCH, PROGRESS}
_SPLITS = ("train", "training", "test", "val", "valid", "validation", "eval", "dev")


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: the metrics of one family.

    Args:
        family: What its curves have in common, for example ``loss``.
        curves: Label to series.
    """

    family: str
    curves: Mapping[str, Series]


def plan_plots(series: Iterable[Series]) -> tuple[list[Plot], list[str]]:
    """Decide what is drawn.

    Metrics that are the same thing for different data (``train/loss``, ``test/loss``, ``val_loss``, ``loss``)
    share a plot. Of a metric that several ranks logged, the lowest rank's curve is drawn; of throughput all.

    Returns:
        The plots, throughput last, and a note for each that was left out.
    """
    families: dict[str, dict[str, Series]] = {}
    for each in sorted(series, key=lambda s: s.name == SAMPLES_PER_SECOND):
        if each.name in _NOT_PLOTTED:
            continue
        label = f"rank {each.rank}" if each.name == SAMPLES_PER_SECOND else each.name
        families.setdefault(family_of(each.name), {}).setdefault(label, each)
    plots = [Plot(name, dict(list(curves.items())[:MAX_CURVES])) for name, curves in families.items()]
    notes = [
        f"The plot of {name} shows {MAX_CURVES} of {len(curves)} curves."
        for name, curves in families.items()
        if len(curves) > MAX_CURVES
    ]
    if len(plots) > MAX_PLOTS:
        notes.append(f"{MAX_PLOTS} of {len(plots)} plots were drawn.")
    return plots[:MAX_PLOTS], notes


def family_of(name: str) -> str:
    """What a metric measures, whatever the data: ``loss`` for ``train/loss``, ``loss/val`` and ``val_loss``."""
    parts = [part for part in name.split("/") if part] or [name]
    kept = [part for part in parts if part.lower() not in _SPLITS] or parts
    last = kept[-1]
    for split in _SPLITS:
        if last.lower().startswith(f"{split}_"):
            return last[len(split) + 1 :] or last
        if last.lower().endswith(f"_{split}"):
            return last[: -len(split) - 1] or last
    return last


def draw(plot: Plot) -> bytes:
    """Draw one plot.

    Returns:
        SVG, a pure function of the plot and the version of matplotlib.
    """
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A constant salt: else the ids inside an SVG are random. Text stays text, which is small.
    salted = {"svg.hashsalt": "trainyard", "svg.fonttype": "none"}
    with style.context(["default", salted]):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for label, curve in plot.curves.items():
            marker = "o" if len(curve.values) <= 30 else ""
            axes.plot(curve.steps, _drawable(curve.values), label=label, marker=marker, markersize=3)
        axes.set_title(_plain(plot.family), loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if len(plot.curves) > 1 or next(iter(plot.curves)) != plot.family:
            axes.legend([_plain(label) for label in plot.curves], frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _drawable(values: Iterable[float]) -> list[float]:
    """Infinities leave a gap, as NaN does."""
    return [nan if abs(value) == inf else value for value in values]


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
