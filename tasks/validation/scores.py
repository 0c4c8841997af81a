"""The metrics of quality, as scikit-learn defines them. The one module that imports it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_TOP = 5


def classification_scores(labels: "Array", scores: "Array", probabilities: "Array") -> dict[str, float]:
    """How well classes are told apart; macro averages are over the classes that were labelled or predicted.

    Args:
        labels: int [samples]: true classes, each below the number of classes.
        scores: float [samples, classes], or one score a sample: what the model gave.
        probabilities: float64 [samples, classes]: the same as probabilities.
    """
    import numpy as np
    from sklearn import metrics

    # of the scores themselves: a softmax can make two of them equal
    several = scores.size != len(scores)
    predicted = scores.argmax(axis=1) if several else probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    present = np.unique(labels)
    values = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        # its definition, without the warning of balanced_accuracy_score where a class was predicted and never labelled
        "balanced_accuracy": metrics.recall_score(labels, predicted, labels=present, average="macro"),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "log_loss": metrics.log_loss(labels, probabilities, labels=classes),
    }
    if len(classes) > _TOP:
        values["top_5_accuracy"] = metrics.top_k_accuracy_score(labels, scores, k=_TOP, labels=classes)
    return {name: float(value) for name, value in values.items()}


def regression_scores(expected: "Array", predicted: "Array") -> dict[str, float]:
    """How far numbers are off, averaged over the values of a sample.

    Args:
        expected: float64 [samples, values].
        predicted: Likewise.
    """
    from sklearn import metrics

    values = {
        "mae": metrics.mean_absolute_error(expected, predicted),
        "mse": metrics.mean_squared_error(expected, predicted),
        "rmse": metrics.root_mean_squared_error(expected, predicted),
    }
    if len(expected) > 1:  # of one sample there is no variance to explain
        values["r2"] = metrics.r2_score(expected, predicted)
    return {name: float(value) for name, value in values.items()}
