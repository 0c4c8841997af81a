"""Every tolerance says on whose authority it stands."""

import pytest

from trainyard import OrtValidation
from trainyard.tasks.validation.tolerance import tolerance_for


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol", "source"),
    [
        ("float64", 1e-7, 1e-7, "torch.testing.assert_close"),
        ("float32", 1e-5, 1e-4, "torch.testing.assert_close"),
        ("float16", 1e-3, 2e-3, "rounding error of float16"),
        ("bfloat16", 1e-2, 1.6e-2, "torch.testing.assert_close"),
        ("int64", 0, 0, "integers and booleans are exact"),
        ("bool", 0, 0, "integers and booleans are exact"),
    ],
)
def test_each_element_type_has_its_own(dtype, atol, rtol, source):
    found = tolerance_for(dtype, OrtValidation())
    assert (found.dtype, found.atol, found.rtol) == (dtype, atol, rtol)
    assert source in found.source


def test_what_the_user_set_is_said_to_be_the_users():
    found = tolerance_for("float32", OrtValidation(atol=0.5))
    assert (found.atol, found.rtol) == (0.5, 1e-4)
    assert found.source.startswith("OrtValidation.atol; else ")
    assert (
        tolerance_for("float32", OrtValidation(atol=0.5, rtol=0)).source == "OrtValidation.atol and OrtValidation.rtol"
    )
    assert tolerance_for("int64", OrtValidation(atol=0.5)).atol == 0  # classes are equal or they are not
