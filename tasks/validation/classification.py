"""What a classifier gets right, and how sure it is of it."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.validation.report import MOST_CLASSES, Classification

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_MOST_POINTS = 100


def classify(labels: "Array", predicted: "Array", confidence: "Array", num_classes: int) -> Classification:
    """Confusion matrix, and accuracy on the most confident part of the samples.

    Args:
        labels: int [samples]: true classes.
        predicted: int [samples].
        confidence: float [samples]: largest probability.
        num_classes: Scores that the model gives.
    """
    import numpy as np

    size = max(num_classes, int(labels.max()) + 1)
    matrix: list[list[int]] = []
    if size <= MOST_CLASSES and labels.min() >= 0:
        counts = np.zeros((size, size), dtype=np.int64)
        np.add.at(counts, (labels, predicted), 1)
        matrix = counts.tolist()
    right = (labels == predicted)[np.argsort(-confidence, kind="stable")]
    running = right.cumsum() / np.arange(1, len(right) + 1)
    points = np.unique(np.linspace(0, len(right) - 1, _MOST_POINTS).astype(np.int64))
    return Classification(
        matrix=tuple(map(tuple, matrix)),
        coverage=tuple(((points + 1) / len(right)).tolist()),
        accuracy=tuple(running[points].tolist()),
    )
