"""What an ONNX model must prove before it is registered."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from trainyard.tasks.specs.form import FormEntries
from trainyard.tasks.specs.quality import LOWER_IS_BETTER, METRICS, PRIMARY, MetricName, Problem, metric_problems
from trainyard.tasks.specs.spec import Spec

_METRICS = [name for names in METRICS.values() for name in names]


def _bounds(field: str, title: str, metrics: list[MetricName]) -> FormEntries:
    """Entries of a form: the name of a metric and its bound."""
    fields: dict[str, dict[str, Any]] = {
        "name": {"type": "string", "title": "Metric", "enum": metrics},
        field: {"type": "number", "title": title},
    }
    return FormEntries("Bound", fields, lambda entry: entry.get(field), ("name", field))


LEAST = _bounds("minimum", "Minimum", [name for name in _METRICS if name not in LOWER_IS_BETTER])
"""Least values, by the name of a metric."""

GREATEST = _bounds("maximum", "Maximum", [name for name in _METRICS if name in LOWER_IS_BETTER])
"""Greatest values, by the name of a metric."""


class OrtValidation(Spec):
    """The gate in front of the registry: ONNX Runtime against the trained PyTorch model, on many samples."""

    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1, title="Execution providers")
    """Every provider named here is tested on its own, and asserted to be the one that ran."""

    min_node_share: float = Field(default=0.5, gt=0, le=1, title="Least share of nodes")
    """Of the graph's nodes, at least this share must run in the provider itself, where that is not the CPU's; ONNX
    Runtime gives to the CPU what a provider cannot run, and some of it (sizes and shapes) on purpose. Providers that
    fuse many nodes into one, such as TensorRT, may need less."""

    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1, title="Batch sizes")
    """Batch sizes to compare at; by default 1, the exported example's, and one that is neither. Batches of 1
    are compared on at most 256 samples, others on all."""

    max_samples: int = Field(default=4096, ge=1, title="Most samples")
    """At most this many of the run's held-out samples are used, spread evenly over all of them."""

    atol: float | None = Field(default=None, ge=0, allow_inf_nan=False, title="Absolute tolerance")
    """Largest allowed |onnx - torch| beyond the relative part (``numpy.allclose``'s rule), for floats of any width; by
    default 1e-5 for float32, as in ``torch.testing.assert_close``. Integer and boolean outputs must be equal."""

    rtol: float | None = Field(default=None, ge=0, allow_inf_nan=False, title="Relative tolerance")
    """Largest allowed difference relative to |torch|, for floats of any width; by default 1e-4 for float32, which is
    below the rounding error of float16: a model that lost precision fails. The report says what was used, and why."""

    batch_dependent: bool = Field(default=False, title="Batch dependent")
    """The model's answer to a sample may depend on the others of its batch, as similarities within a batch do. Else
    that is taken for batch statistics or dropout left in training mode, and fails."""

    min_agreement: float = Field(default=1.0, ge=0, le=1, title="Least label agreement")
    """Smallest fraction of samples on which both runtimes choose the same class (classifiers only)."""

    problem_type: Literal["auto", "classification", "regression"] = Field(default="auto", title="Kind of model")
    """What the model answers. By default told from the run's labels: integers that name classes, or floats shaped like
    an output. Decides which metrics are measured; the classes of a regression are never compared."""

    min_metrics: Annotated[dict[str, FiniteFloat], LEAST] = Field(
        default_factory=dict, title="Least metrics", examples=[{"accuracy": 0.95}, {"r2": 0.8}]
    )
    """Lower bounds for quality on the held-out labels in ONNX Runtime, for example ``{"accuracy": 0.95}``. Of
    classifiers: accuracy, balanced_accuracy, precision_macro, recall_macro, f1_macro, top_5_accuracy; of regressions:
    r2."""

    max_metrics: Annotated[dict[str, FiniteFloat], GREATEST] = Field(
        default_factory=dict, title="Greatest metrics", examples=[{"mae": 0.1}, {"log_loss": 0.3}]
    )
    """Upper bounds for what is better the lower it is, for example ``{"mae": 0.1}``. Of classifiers: log_loss; of
    regressions: mae, mse, rmse."""

    champion_margin: float | None = Field(default=None, ge=0, allow_inf_nan=False, title="Champion margin")
    """Compare with the registered champion on the same labelled samples: a metric may be worse than the champion's by
    at most this much. When empty, nothing is compared, and a champion stays until somebody promotes another."""

    champion_metrics: tuple[MetricName, ...] | None = Field(
        default=None, min_length=1, title="Champion metrics", examples=[["f1_macro", "log_loss"]]
    )
    """The metrics that this model and the champion are compared by, here and by ``trainyard models promote``; by
    default accuracy for classifiers, rmse for regressions."""

    @model_validator(mode="after")
    def _metrics_can_be_measured(self) -> "OrtValidation":
        problems = metric_problems(self.min_metrics, self.max_metrics, self.champion_metrics or (), self.told_problem)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def told_problem(self) -> Problem | None:
        """The kind of model, where it is told."""
        return None if self.problem_type == "auto" else self.problem_type

    def compared_metrics(self, problem: Problem) -> tuple[str, ...]:
        """The metrics that two models are compared by."""
        return self.champion_metrics or (PRIMARY[problem],)
