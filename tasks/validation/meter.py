"""Accumulates how one output differs between torch and ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.signature import TensorSignature
from trainyard.tasks.validation.figures import HISTOGRAM_DECADES, OutputParity, Tolerance, WorstSample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Indices = npt.NDArray[np.int64]

NUM_WORST = 5


@dataclass(slots=True)
class Meter:
    """The figures of one output: sums and counts, so that batches of any size weigh right.

    Args:
        tensor: The output.
        is_batched: Whether its first axis is the sample.
        tolerance: How far it may differ.
        has_classes: Whether the largest value of a row is its class.
        keeps_answers: Whether the values themselves are wanted.
    """

    tensor: TensorSignature
    is_batched: bool
    tolerance: Tolerance
    has_classes: bool
    keeps_answers: bool = False
    num_values: int = 0
    num_nonzero: int = 0
    num_non_finite: int = 0
    num_beyond: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    max_rel: float = 0.0
    sum_rel: float = 0.0
    atol_needed: float = 0.0
    histogram: "Array | None" = None
    sample_indices: "list[Array]" = field(default_factory=list)
    sample_errors: "list[Array]" = field(default_factory=list)
    torch_classes: "list[Array]" = field(default_factory=list)
    onnx_classes: "list[Array]" = field(default_factory=list)
    torch_answers: "list[Array]" = field(default_factory=list)
    onnx_answers: "list[Array]" = field(default_factory=list)

    def update(self, want: "Array", got: "Array", indices: "Indices", keep: int) -> None:
        """Add one batch.

        Args:
            want: Torch's output.
            got: ONNX Runtime's.
            indices: Index of each sample of the batch in the samples file.
            keep: How many of them count, where the output has a sample axis first.
        """
        if want.shape != got.shape:
            raise ValidationFailedError(
                f"output {self.tensor.name!r} has shape {list(want.shape)} in torch and {list(got.shape)} in "
                "ONNX Runtime"
            )
        if self.is_batched:
            want, got, indices = want[:keep], got[:keep], indices[:keep]
        self._add_errors(want, got, indices)
        if self.has_classes:
            self.torch_classes.append(want.argmax(axis=1))
            self.onnx_classes.append(got.argmax(axis=1))
        if self.keeps_answers:
            self.torch_answers.append(want)
            self.onnx_answers.append(got)

    def _add_errors(self, want: "Array", got: "Array", indices: "Indices") -> None:
        import numpy as np

        between = _integer_difference(want, got)
        want, got = want.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(want) & np.isfinite(got)
        same_infinity = np.isinf(want) & (want == got)  # a masked score, say; it has no error
        size = np.where(finite, np.abs(want), 0.0)
        error = np.abs(np.subtract(got, want, where=finite, out=np.zeros_like(want))) if between is None else between
        relative = np.divide(error, size, where=size > 0, out=np.zeros_like(error))
        atol, rtol = self.tolerance.atol, self.tolerance.rtol
        if self.is_batched and error.size:
            self.sample_indices.append(indices)
            self.sample_errors.append(error.reshape(len(error), -1).max(axis=1))
        self.num_values += int(finite.sum())
        self.num_nonzero += int((size > 0).sum())
        self.num_non_finite += int((~(finite | same_infinity)).sum())
        self.num_beyond += int((error > atol + rtol * size).sum())
        self.max_abs = max(self.max_abs, float(error.max(initial=0.0)))
        self.sum_abs += float(error.sum())
        self.max_rel = max(self.max_rel, float(relative.max(initial=0.0)))
        self.sum_rel += float(relative.sum())
        self.atol_needed = max(self.atol_needed, float((error - rtol * size).max(initial=0.0)))
        counts = _histogram(error[finite])
        self.histogram = counts if self.histogram is None else self.histogram + counts

    def classes(self) -> "tuple[Array, Array]":
        """Predicted classes in torch and in ONNX Runtime."""
        import numpy as np

        return np.concatenate(self.torch_classes), np.concatenate(self.onnx_classes)

    def answers(self) -> "tuple[Array, Array]":
        """The values, a row a sample, in torch and in ONNX Runtime."""
        import numpy as np

        return np.concatenate(self.torch_answers), np.concatenate(self.onnx_answers)

    def result(
        self,
        provider: str,
        batch_size: int,
        num_samples: int,
        sizes: dict[str, int],
        labels: "Mapping[Any, Any] | None",
    ) -> OutputParity:
        """The figures."""
        agreement = None
        if self.torch_classes:
            torch_classes, onnx_classes = self.classes()
            agreement = float((torch_classes == onnx_classes).mean())
        worst = self._worst(labels)
        return OutputParity(
            provider=provider,
            batch_size=batch_size,
            sizes=sizes,
            output=self.tensor.name,
            num_samples=num_samples,
            max_abs_error=self.max_abs,
            mean_abs_error=self.sum_abs / max(self.num_values, 1),
            max_rel_error=self.max_rel,
            mean_rel_error=self.sum_rel / max(self.num_nonzero, 1),
            worst_sample=worst[0].index if worst else None,
            num_beyond_tolerance=self.num_beyond,
            num_non_finite=self.num_non_finite,
            atol_needed=self.atol_needed,
            agreement=agreement,
            histogram=tuple(map(int, self.histogram)) if self.histogram is not None else (),
            worst=worst,
        )

    def _worst(self, labels: "Mapping[Any, Any] | None") -> tuple[WorstSample, ...]:
        import numpy as np

        if not self.sample_errors:
            return ()
        indices, errors = np.concatenate(self.sample_indices), np.concatenate(self.sample_errors)
        order = np.argsort(-errors, kind="stable")[:NUM_WORST]
        classes = self.classes() if self.torch_classes else None
        return tuple(
            WorstSample(
                output=self.tensor.name,
                index=int(indices[n]),
                max_abs_error=float(errors[n]),
                torch_class=None if classes is None else int(classes[0][n]),
                onnx_class=None if classes is None else int(classes[1][n]),
                label=None if labels is None or classes is None else int(labels[indices[n]]),
            )
            for n in order
        )


def _integer_difference(want: "Array", got: "Array") -> "Array | None":
    """Absolute differences of integers, never zero where they differ; None of others.

    float64 holds every integer up to 2^53 only, so they are subtracted as what they are: the larger less the smaller,
    in unsigned numbers, where that cannot overflow.
    """
    import numpy as np

    if want.dtype != got.dtype or want.dtype.kind not in "iub":
        return None
    larger, smaller = np.maximum(want, got), np.minimum(want, got)
    return (larger.astype(np.uint64) - smaller.astype(np.uint64)).astype(np.float64)


def _histogram(errors: "Array") -> "Array":
    import numpy as np

    edges = [0.0, *(10.0**decade for decade in HISTOGRAM_DECADES), np.inf]
    return np.histogram(errors, bins=edges)[0]
