"""The curve in Prefect's UI: which metric, which points, and an image that a browser can read."""

import base64
import re
from xml.etree import ElementTree

import pytest

from trainyard.tasks.runtime.live import LatestMetrics, Sample
from trainyard.tasks.training.live_curve import HEIGHT, MAX_POINTS, WIDTH, LiveCurve, draw_curve


@pytest.fixture
def log():
    """Logs values; gives the newest of all metrics, as ``MetricsTail`` does."""
    latest = LatestMetrics()

    def log(**values):
        for name, (value, step) in values.items():
            position = latest.samples[name][0].position + 1 if name in latest.samples else 0
            latest.samples[name] = {0: Sample(value, step, 0.0, position)}
        return latest

    return log


def drawn(curve):
    """The curve's image, as SVG."""
    (image,) = re.findall(r"base64,([^)]+)\)", curve.markdown())
    return base64.b64decode(image).decode()


def points_of(svg):
    line = ElementTree.fromstring(svg).find("{*}polyline").get("points")
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_the_loss_is_shown_where_there_is_one(log):
    curve = LiveCurve()
    assert curve.add(log(epoch=(1, 1), train_loss=(0.5, 1)))
    assert curve.add(log(epoch=(2, 2), train_loss=(0.25, 2)))
    assert not curve.add(log(train_loss=(0.25, 2))), "the same step again"
    assert not curve.add(log(train_loss=(float("nan"), 3)))
    assert curve.markdown().startswith("### train_loss: 0.250")
    assert len(points_of(drawn(curve))) == 2


def test_the_loss_takes_the_place_of_what_came_before_it(log):
    curve = LiveCurve()
    curve.add(log(lr=(0.1, None), epoch=(0, None)))
    assert curve.metric == "lr"
    assert curve.add(log(lr=(0.1, None), loss=(2.0, None)))
    assert curve.metric == "loss"
    curve.add(log(loss=(1.0, None)))
    assert len(points_of(drawn(curve))) == 2


def test_without_a_loss_what_is_logged_most_often_is_shown_with_its_past(log):
    curve = LiveCurve()
    curve.add(log(lr=(0.1, None), progress=(0.1, None)))
    for n in range(4):
        curve.add(log(accuracy=(n / 4, None), progress=(n / 4, None), epoch=(n, None)))
    assert curve.metric == "accuracy"
    assert len(points_of(drawn(curve))) == 4


def test_a_value_is_one_point_however_often_it_is_looked_at(log):
    curve = LiveCurve()
    assert curve.add(log(loss=(2.0, None)))
    assert not any(curve.add(log(lr=(0.1, None))) for _ in range(3))
    assert curve.add(log(loss=(2.0, None))), "the same value again, logged again"
    assert len(points_of(drawn(curve))) == 2


def test_a_falling_loss_falls_on_the_screen_and_stays_inside():
    points = points_of(draw_curve([(0, 2.0), (5, 1.0), (10, 0.5)]))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points), "y grows downwards"
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)


@pytest.mark.parametrize("values", [[(3, 1.0)], [(1, 2.0), (2, 2.0)], [(0, -1e300), (1, 1e300)]])
def test_degenerate_curves_are_drawn(values):
    assert len(points_of(draw_curve(values))) == len(values)


@pytest.mark.parametrize("has_steps", [True, False])
def test_a_long_training_stays_a_small_image_with_the_newest_value(log, has_steps):
    curve = LiveCurve()
    for step in range(10 * MAX_POINTS):
        assert curve.add(log(loss=(1 / (step + 1), step if has_steps else None)))
    assert len(curve.markdown()) < 20_000
    assert f"step {10 * MAX_POINTS - 1:,}" in drawn(curve)
