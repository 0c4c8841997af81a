"""What an ONNX model must prove before it is registered."""

from typing import Annotated

from pydantic import Field, FiniteFloat, field_validator

from trainyard.tasks.specs.form import FormEntries
from trainyard.tasks.specs.spec import Spec

KNOWN_METRICS = ("accuracy",)
"""Quality that validation can measure on labelled samples."""

METRIC = {"type": "string", "title": "Metric", "enum": list(KNOWN_METRICS)}
LEAST = {"type": "number", "title": "Minimum"}
LEAST_METRICS = FormEntries(
    "Bound", {"name": METRIC, "minimum": LEAST}, lambda entry: entry.get("minimum"), ("name", "minimum")
)
"""Least values, by the name of a metric."""


class OrtValidation(Spec):
    """The gate in front of the registry: ONNX Runtime against the trained PyTorch model, on many samples."""

    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1, title="Execution providers")
    """Every provider named here is tested on its own, and asserted to be the one that ran."""

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

    min_agreement: float = Field(default=1.0, ge=0, le=1, title="Least label agreement")
    """Smallest fraction of samples on which both runtimes choose the same class (classifiers only)."""

    min_metrics: Annotated[dict[str, FiniteFloat], LEAST_METRICS] = Field(default_factory=dict, title="Least metrics")
    """Lower bounds for quality on the held-out labels in ONNX Runtime, for example ``{"accuracy": 0.95}``."""

    champion_margin: float | None = Field(default=None, ge=0, allow_inf_nan=False, title="Champion margin")
    """Compare with the registered champion on the same labelled samples: each metric may be lower than the champion's
    by at most this much. When empty, nothing is compared, and a champion stays until somebody promotes another."""

    @field_validator("min_metrics")
    @classmethod
    def _known_metrics(cls, bounds: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(bounds) - set(KNOWN_METRICS))
        if unknown:
            raise ValueError(f"cannot be measured: {', '.join(unknown)}; known: {', '.join(KNOWN_METRICS)}")
        return bounds
