"""The curve in Prefect's UI: which metric, which points, and an image that a browser can read."""

import base64
import re
from xml.etree import ElementTree

import pytest

from trainyard.tasks.runtime.live import LatestMetrics, Sample
from trainyard.tasks.training.live_curve import HEIGHT, MAX_POINTS, WIDTH, LiveCurve, draw_curve


def latest(**values):
    return LatestMetrics({name: {0: Sample(value, step, 0.0)} for name, (value, step) in values.items()})


def points_of(svg):
    line = ElementTree.fromstring(svg).find("{*}polyline").get("points")
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_the_loss_is_shown_where_there_is_one():
    curve = LiveCurve()
    assert curve.add(latest(epoch=(1, 1), train_loss=(0.5, 1)))
    assert curve.add(latest(epoch=(2, 2), train_loss=(0.25, 2)))
    assert not curve.add(latest(train_loss=(0.25, 2))), "the same step again"
    assert not curve.add(latest(train_loss=(float("nan"), 3)))
    assert curve.markdown().startswith("### train_loss: 0.250")
    (image,) = re.findall(r"base64,([^)]+)\)", curve.markdown())
    assert len(points_of(base64.b64decode(image).decode())) == 2


def test_a_falling_loss_falls_on_the_screen_and_stays_inside():
    points = points_of(draw_curve([(0, 2.0), (5, 1.0), (10, 0.5)]))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points), "y grows downwards"
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)


@pytest.mark.parametrize("values", [[(3, 1.0)], [(1, 2.0), (2, 2.0)], [(0, -1e300), (1, 1e300)]])
def test_degenerate_curves_are_drawn(values):
    assert len(points_of(draw_curve(values))) == len(values)


def test_a_long_training_stays_a_small_image():
    curve = LiveCurve()
    for step in range(10 * MAX_POINTS):
        curve.add(latest(loss=(1 / (step + 1), step)))
    assert len(curve.markdown()) < 20_000
