"""What the labels of the samples ask: which output answers them, and how its values are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainyard.tasks.models.signature import ModelSignature, TensorSignature
from trainyard.tasks.specs.quality import Problem
from trainyard.tasks.validation.figures import QualityFigure
from trainyard.tasks.validation.scores import classification_scores, regression_scores

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """What quality is measured by.

    Args:
        problem: The kind of model; None where neither settings nor labels tell.
        output: Position of the output that answers the labels; None where nothing can be measured.
        note: Why not.
    """

    problem: Problem | None
    output: int | None
    note: str = ""

    def has_classes(self, position: int) -> bool:
        """Whether the largest value of an output is its class, for all that is known of it."""
        return self.problem != "regression" or self.output not in (None, position)


def goal_of(signature: ModelSignature, labels: "Array | None", told: Problem | None) -> Goal:
    """Which output is measured against the labels, and how.

    Args:
        signature: What the model gives.
        labels: Integers or booleans [num_samples], or floats [num_samples, …]; None where there are none.
        told: The kind of model, where the settings say it; else the labels tell.
    """
    if labels is None:
        return Goal(told, None, "the run left no labelled samples")
    problem = told or _told_by(signature, labels)
    output, note = (_regression if problem == "regression" else _classification)(signature, labels)
    return Goal(told if output is None else problem, output, note)


def _told_by(signature: ModelSignature, labels: "Array") -> Problem:
    """Integers are classes, but beside a model with one value a sample only 0 and 1 are: others are counts."""
    import numpy as np

    if labels.dtype.kind not in "iub":
        return "regression"
    are_classes = signature.classifier_output is not None or np.isin(labels, (0, 1)).all()
    return "classification" if are_classes or _first(signature, _is_single_score) is None else "regression"


def _regression(signature: ModelSignature, labels: "Array") -> tuple[int | None, str]:
    """The output that answers labels that are numbers, or why none does."""
    output = _first(signature, lambda tensor: _answers(tensor, labels.shape[1:]))
    return output, f"no output of floats is shaped like the labels, {list(labels.shape)}" if output is None else ""


def _classification(signature: ModelSignature, labels: "Array") -> tuple[int | None, str]:
    """The output that answers labels that are classes, or why none does."""
    if labels.dtype.kind not in "iub" or labels.size != len(labels):
        found = f"{labels.dtype} {list(labels.shape)}"
        return None, f"classes are integers [num_samples]; the labels are {found}"
    output = signature.classifier_output
    if output is None:
        output = _first(signature, _is_single_score)
    if output is None:
        return None, "no output holds a score a class"
    num_classes = signature.outputs[output].num_classes or 2
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        return None, f"the labels lie in {low}..{high}; expected classes 0..{num_classes - 1}"
    return output, ""


def measure(goal: Goal, labels: "Array", answers: "Array", probable: bool) -> dict[str, float]:
    """Every metric of the goal's kind.

    Args:
        goal: Says which kind.
        labels: Of the samples.
        answers: The output's values, a row a sample.
        probable: Whether a classifier's values are probabilities (see ``are_probabilities``).
    """
    if goal.problem == "regression":
        return regression_scores(rows(labels), rows(answers))
    return classification_scores(labels.reshape(-1).astype("int64"), answers, probabilities(answers, probable))


def quality_figures(
    goal: Goal, labels: "Array", answers: "tuple[Array, Array]", provider: str
) -> tuple[QualityFigure, ...]:
    """Every metric in torch and in ONNX Runtime; none where one of them gave NaN or infinities.

    Args:
        goal: What is measured.
        labels: Of the samples.
        answers: The output's values in torch and in ONNX Runtime.
        provider: The execution provider.
    """
    import numpy as np

    if not all(np.isfinite(values).all() for values in answers):
        return ()
    probable = are_probabilities(answers[0])
    torch, onnxruntime = (measure(goal, labels, values, probable) for values in answers)
    return tuple(
        QualityFigure(
            provider=provider,
            metric=metric,
            num_samples=len(labels),
            torch=torch[metric],
            onnxruntime=value,
            difference=value - torch[metric],
        )
        for metric, value in onnxruntime.items()
    )


def are_probabilities(scores: "Array") -> bool:
    """Whether a classifier's scores are probabilities already; else they are taken for logits."""
    import numpy as np

    if scores.min() < 0:
        return False
    if scores.size == len(scores):
        return bool(scores.max() <= 1)
    return bool(np.allclose(scores.sum(axis=1, dtype=np.float64), 1, atol=1e-3))


def probabilities(scores: "Array", probable: bool) -> "Array":
    """Probabilities [samples, classes] of a classifier's scores; one score a sample is that of the class 1."""
    import numpy as np

    values = scores.astype(np.float64)
    if values.size == len(values):
        positive = values.reshape(-1) if probable else np.exp(-np.logaddexp(0, -values.reshape(-1)))
        return np.stack([1 - positive, positive], axis=1)
    if not probable:
        values = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def rows(values: "Array") -> "Array":
    """Numbers [samples, values of one]."""
    return values.reshape(len(values), -1).astype("float64")


def _first(signature: ModelSignature, fits: Callable[[TensorSignature], bool]) -> int | None:
    candidates = (n for n, t in enumerate(signature.outputs) if signature.is_batched(t) and fits(t))
    return next(candidates, None)


def _is_single_score(tensor: TensorSignature) -> bool:
    return _answers(tensor, ())


def _answers(tensor: TensorSignature, shape: tuple[int, ...]) -> bool:
    """Whether an output of floats has the shape of the labels, axes of size one aside."""
    found = [size for size in tensor.shape[1:] if size != 1]
    wanted = [size for size in shape if size != 1]
    fits = len(found) == len(wanted) and all(
        not isinstance(size, int) or size == want for size, want in zip(found, wanted, strict=True)
    )
    return fits and tensor.dtype.startswith(("float", "bfloat"))
