import base64
import re
from xml.etree import ElementTree

import pytest

from trainyard.tasks.metrics.markdown import MAX_INLINE_BYTES, MAX_ROWS, render_markdown
from trainyard.tasks.metrics.plots import MAX_CURVES, MAX_PLOTS, draw, family_of, plan_plots
from trainyard.tasks.metrics.report import MetricsReport, RankSummary, Series, Table


def series(name: str, rank: int = 0, values: tuple[float, ...] = (2.0, 1.0)) -> Series:
    return Series(name=name, rank=rank, steps=tuple(range(len(values))), values=values, times_s=values)


def report(**fields: object) -> MetricsReport:
    empty = {"finals": {}, "world_size": 1, "samples_per_second": None, "ranks": (), "series": ()}
    return MetricsReport.model_validate({**empty, **fields})


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("loss", "loss"),
        ("train/loss", "loss"),
        ("loss/test", "loss"),
        ("val_loss", "loss"),
        ("loss_train", "loss"),
        ("head/train/loss", "loss"),
        ("gpu0/memory", "memory"),
        ("latest_loss", "latest_loss"),
        ("train", "train"),
        ("test_", "test_"),
        ("/", "/"),
    ],
)
def test_the_family_of_a_metric(name: str, family: str) -> None:
    assert family_of(name) == family


def test_metrics_of_a_family_share_a_plot_and_throughput_comes_last() -> None:
    names = ("samples_per_second", "epoch", "progress", "loss", "accuracy", "train/loss")
    logged = [series(name, rank) for rank in (0, 1) for name in names]
    plots, notes = plan_plots(logged)
    assert [(plot.family, list(plot.curves)) for plot in plots] == [
        ("loss", ["loss", "train/loss"]),
        ("accuracy", ["accuracy"]),
        ("samples_per_second", ["rank 0", "rank 1"]),
    ]
    assert plots[0].curves["loss"].rank == 0
    assert notes == []


def test_what_is_not_drawn_is_said() -> None:
    plots, notes = plan_plots([series(f"m{n}") for n in range(30)] + [series(f"head{n}/loss") for n in range(20)])
    assert len(plots) == MAX_PLOTS
    assert notes == [
        f"The plot of loss shows {MAX_CURVES} of 20 curves.",
        f"{MAX_PLOTS} of 31 plots were drawn.",
    ]


def test_a_plot_is_well_formed_and_always_the_same() -> None:
    values = (1.0, float("nan"), float("inf"), 0.5)
    (plot,), _ = plan_plots([series("a$b_c^d", values=values), series("train/a$b_c^d", values=values)])
    svg = draw(plot)
    assert svg == draw(plot)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"train/a$b_c^d" in svg
    assert b"dc:date" not in svg
    assert len(svg) < 40_000


def test_a_single_value_can_be_drawn() -> None:
    (plot,), _ = plan_plots([series("loss", values=(1.0,))])
    assert b"<svg" in draw(plot)


def test_the_summary_shows_finals_ranks_and_plots() -> None:
    summary = render_markdown(
        report(
            finals={"loss": 0.12345, "accuracy": float("nan")},
            samples_per_second=1500.0,
            world_size=2,
            ranks=[
                RankSummary(
                    rank=0,
                    local_rank=0,
                    host="node_0",
                    num_records=9,
                    device="cuda:0",
                    device_model="NVIDIA H200",
                    num_threads=4,
                    samples_per_second=1000.0,
                ),
                RankSummary(rank=1, local_rank=0, host=None, num_records=3, samples_per_second=500.0),
            ],
            tags={"best": None},
        ),
        {"01-loss.svg": b"<svg/>"},
    )
    assert "| loss | 0.123 |\n| accuracy | nan |" in summary
    assert "| 0 | node\\_0 | cuda:0 NVIDIA H200 | 4 | 9 | 1,000 |\n| 1 |  |  |  | 3 | 500 |" in summary
    assert "All ranks together: 1,500 samples/s." in summary
    found = re.search(r"!\[loss\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", summary)
    assert found and base64.b64decode(found[1]) == b"<svg/>"
    assert "| best |  |" in summary


def test_names_from_scripts_stay_inside_their_cells() -> None:
    summary = render_markdown(report(finals={"a|b\nc<script>": 1.0}), {})
    assert "| a\\|b c\\<script\\> | 1 |" in summary


def test_large_plots_and_long_tables_are_cut_and_said() -> None:
    rows = tuple({"digit": n} for n in range(MAX_ROWS + 7))
    plots = {"01-small.svg": b"<svg/>", "02-large.svg": b"x" * MAX_INLINE_BYTES}
    summary = render_markdown(report(tables=[Table(name="classes", rows=rows)]), plots)
    assert f"| {MAX_ROWS - 1} |" in summary and f"| {MAX_ROWS} |" not in summary
    assert f"The first {MAX_ROWS} of {MAX_ROWS + 7} rows" in summary
    assert "too large for this page: 02-large.svg." in summary
    assert len(summary) < 5000


def test_an_empty_report_says_why() -> None:
    assert render_markdown(report(notes=("Nothing.",)), {}) == "# Metrics\n\n> Nothing.\n"
