"""How one output differs, value by value."""

import numpy as np
import pytest

from trainyard.tasks.models.signature import TensorSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.meter import Meter
from trainyard.tasks.validation.tolerance import tolerance_for


def measured(want, got):
    tensor = TensorSignature(name="output", dtype=want.dtype.name, shape=("batch", *want.shape[1:]))
    meter = Meter(tensor, True, tolerance_for(tensor.dtype, OrtValidation()), has_classes=False)
    meter.update(want, got, np.arange(len(want)), len(want))
    return meter.result("CPUExecutionProvider", len(want), len(want), {}, None)


@pytest.mark.parametrize(
    ("dtype", "want", "got", "difference"),
    [
        ("int64", 2**53, 2**53 + 1, 1),
        ("int64", -(2**53) - 1, -(2**53), 1),
        ("int64", 2**63 - 1, -(2**63), 2**64),
        ("uint64", 2**64 - 1, 2**64 - 2, 1),
        ("int8", -128, 127, 255),
        ("bool", True, False, 1),
        ("int64", -7, -7, 0),
    ],
)
def test_integers_are_compared_as_integers(dtype, want, got, difference):
    for one, other in ((want, got), (got, want)):
        found = measured(np.array([[one]], dtype), np.array([[other]], dtype))
        assert (found.max_abs_error, found.num_beyond_tolerance) == (difference, int(difference > 0))
        assert sum(found.histogram) == 1


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("got", "num_wrong"),
    [([-INF, 1], 0), ([INF, 1], 1), ([5, 1], 1), ([NAN, 1], 1), ([-INF, INF], 1), ([-INF, NAN], 1)],
)
def test_equal_infinities_are_no_error_and_not_a_number_always_is(got, num_wrong):
    found = measured(np.array([[-INF, 1]], np.float32), np.array([got], np.float32))
    assert found.num_non_finite == num_wrong
    assert found.max_abs_error == 0 and found.num_beyond_tolerance == 0
    assert measured(np.array([[NAN]], np.float32), np.array([[NAN]], np.float32)).num_non_finite == 1
