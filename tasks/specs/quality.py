"""The metrics of quality: their names, what kind of model each is for, and which way is better."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Problem = Literal["classification", "regression"]
"""What a model answers: a class, or numbers."""

ClassificationMetric = Literal[
    "accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "top_5_accuracy", "log_loss"
]
RegressionMetric = Literal["mae", "mse", "rmse", "r2"]
MetricName = Literal[ClassificationMetric, RegressionMetric]

METRICS: Mapping[Problem, tuple[MetricName, ...]] = {
    "classification": get_args(ClassificationMetric),
    "regression": get_args(RegressionMetric),
}
"""What can be measured on labelled samples."""

PRIMARY: Mapping[Problem, MetricName] = {"classification": "accuracy", "regression": "rmse"}
"""What two models are compared by, unless told otherwise."""

LOWER_IS_BETTER = frozenset({"log_loss", "mae", "mse", "rmse"})


def is_worse(metric: str, value: float, than: float, margin: float = 0.0) -> bool:
    """Whether a value of a metric is worse than another by more than a margin; NaN always is."""
    if metric in LOWER_IS_BETTER:
        return not value <= than + margin
    return not value >= than - margin


def worst(metric: str, values: Iterable[float]) -> float:
    """The worst of some values of a metric."""
    return max(values) if metric in LOWER_IS_BETTER else min(values)


def problem_of(metric: str) -> Problem | None:
    """The kind of model that a metric is for, or None where there is no such metric."""
    return next((problem for problem, names in METRICS.items() if metric in names), None)


def metric_problems(
    minima: Iterable[str], maxima: Iterable[str], compared: Iterable[str], problem: Problem | None
) -> list[str]:
    """What is wrong with the metrics that settings name, one sentence each.

    Args:
        minima: Metrics with a lower bound.
        maxima: Metrics with an upper bound.
        compared: Metrics that models are compared by.
        problem: The kind of model, where it was told.
    """
    fields = {"min_metrics": list(minima), "max_metrics": list(maxima), "champion_metrics": list(compared)}
    problems, kinds = [], set()
    for field, names in fields.items():
        for name in names:
            kind = problem_of(name)
            if kind is None:
                problems.append(f"{field}: {name!r} cannot be measured; known: {_known()}")
                continue
            kinds.add(kind)
            if problem is not None and kind != problem:
                problems.append(f"{field}: {name} is for {kind}, but problem_type is {problem!r}")
            if field == "min_metrics" and name in LOWER_IS_BETTER:
                problems.append(f"min_metrics: {name} is better the lower it is; put its bound into max_metrics")
            if field == "max_metrics" and name not in LOWER_IS_BETTER:
                problems.append(f"max_metrics: {name} is better the higher it is; put its bound into min_metrics")
    if len(kinds) > 1 and problem is None:
        problems.append("metrics of classification and of regression: one model cannot be measured by both")
    return problems


def _known() -> str:
    return "; ".join(f"{problem}: {', '.join(names)}" for problem, names in METRICS.items())
