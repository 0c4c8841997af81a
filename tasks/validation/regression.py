"""By how much a regression is off, and in which direction."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.validation.figures import MOST_POINTS, Regression
from trainyard.tasks.validation.quality import rows

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def residuals(labels: "Array", answers: "Array") -> Regression:
    """What was expected and what was answered, and how the differences are spread.

    Args:
        labels: float [samples, …].
        answers: The same shape, axes of size one aside.
    """
    import numpy as np

    expected, predicted = rows(labels).reshape(-1), rows(answers).reshape(-1)
    off = predicted - expected
    p50, p95 = np.percentile(np.abs(off), [50, 95])
    count = min(MOST_POINTS, len(off))
    shown = np.arange(count) * len(off) // count
    return Regression(
        num_values=len(off),
        bias=float(off.mean()),
        p50_abs=float(p50),
        p95_abs=float(p95),
        max_abs=float(np.abs(off).max()),
        expected=tuple(expected[shown].tolist()),
        predicted=tuple(predicted[shown].tolist()),
    )
