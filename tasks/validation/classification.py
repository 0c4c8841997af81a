"""What a classifier gets right, and how sure it is of it."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.validation.figures import MOST_CLASSES, Classification
from trainyard.tasks.validation.quality import are_probabilities, probabilities

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_MOST_POINTS = 100


def classify(labels: "Array", scores: "Array") -> Classification:
    """Confusion matrix, and accuracy on the most confident part of the samples.

    Args:
        labels: int or bool [samples]: true classes.
        scores: float [samples, classes], or one score a sample.
    """
    import numpy as np

    labels = labels.reshape(-1).astype(np.int64)
    probable = are_probabilities(scores)
    chances = probabilities(scores, probable)
    predicted = chances.argmax(axis=1) if scores.size == len(scores) else scores.argmax(axis=1)
    size = chances.shape[1]
    matrix: list[list[int]] = []
    if size <= MOST_CLASSES:
        counts = np.zeros((size, size), dtype=np.int64)
        np.add.at(counts, (labels, predicted), 1)
        matrix = counts.tolist()
    right = (labels == predicted)[np.argsort(-chances.max(axis=1), kind="stable")]
    running = right.cumsum() / np.arange(1, len(right) + 1)
    points = np.unique(np.linspace(0, len(right) - 1, _MOST_POINTS).astype(np.int64))
    return Classification(
        matrix=tuple(map(tuple, matrix)),
        coverage=tuple(((points + 1) / len(right)).tolist()),
        accuracy=tuple(running[points].tolist()),
        scores_are="probabilities" if probable else "logits",
    )
