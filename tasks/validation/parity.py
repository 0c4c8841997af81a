"""Run both models on the same batches and measure how their outputs differ."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.program import TrainedProgram
from trainyard.tasks.models.signature import ModelSignature, TensorSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.report import OutputParity
from trainyard.tasks.validation.samples import Samples, spread
from trainyard.tasks.validation.session import OrtModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Indices = npt.NDArray[np.int64]

MAX_SINGLE_CALLS = 256
"""Batches of one are compared on at most this many samples: each is a call in both runtimes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one provider gave at one batch size.

    Args:
        outputs: One entry an output.
        classes: Predicted class of each compared sample in torch and in ONNX Runtime, or None where the model
            is no classifier.
        positions: Which samples were compared.
    """

    outputs: tuple[OutputParity, ...]
    classes: "tuple[Array, Array] | None"
    positions: "Indices"


def compare(
    program: TrainedProgram,
    model: OrtModel,
    signature: ModelSignature,
    samples: Samples,
    batch_size: int,
    settings: OrtValidation,
) -> Comparison:
    """Compare both models over the samples, in batches of exactly ``batch_size``.

    Raises:
        ValidationFailedError: One of them cannot run such a batch, or their outputs are not alike in shape.
    """
    meters = [_Meter(tensor, signature.is_batched(tensor), settings) for tensor in signature.outputs]
    num_samples = len(samples.indices)
    positions = spread(num_samples, MAX_SINGLE_CALLS if batch_size == 1 else num_samples)
    for batch, keep in _batches(positions, batch_size):
        inputs = {name: array[batch] for name, array in samples.inputs.items()}
        expected, found = run_program(program, inputs), model(inputs)
        if not len(expected) == len(found) == len(meters):
            raise ValidationFailedError(
                f"torch gives {len(expected)} outputs, ONNX Runtime {len(found)}; expected {len(meters)}"
            )
        for meter, want, got in zip(meters, expected, found, strict=True):
            meter.update(want, got, samples.indices[batch], keep)
    classifier = signature.classifier_output
    return Comparison(
        outputs=tuple(meter.result(model.provider, batch_size, len(positions)) for meter in meters),
        classes=None if classifier is None else meters[classifier].classes(),
        positions=positions,
    )


def _batches(positions: "Indices", batch_size: int) -> "Iterator[tuple[Indices, int]]":
    """Full batches, the last filled up from the start; of each, the first ``keep`` samples count."""
    import numpy as np

    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        yield np.concatenate([batch, np.resize(positions, batch_size - len(batch))]), len(batch)


def run_program(program: TrainedProgram, inputs: "dict[str, Array]") -> "list[Array]":
    """Run the trained program.

    Raises:
        ValidationFailedError: It refused the inputs, for example a batch size beyond its range.
    """
    try:
        return program(inputs)
    except Exception as error:  # torch's guards raise AssertionError, RuntimeError and classes of their own
        reason = " ".join(str(error).split())[:300]
        raise ValidationFailedError(f"the saved torch program failed: {type(error).__name__}: {reason}") from error


@dataclass(slots=True)
class _Meter:
    """Accumulates the figures of one output: sums and counts, so that batches of any size weigh right."""

    tensor: TensorSignature
    is_batched: bool
    settings: OrtValidation
    num_values: int = 0
    num_nonzero: int = 0
    num_non_finite: int = 0
    num_beyond: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    max_rel: float = 0.0
    sum_rel: float = 0.0
    atol_needed: float = 0.0
    worst_sample: int | None = None
    torch_classes: "list[Array]" = field(default_factory=list)
    onnx_classes: "list[Array]" = field(default_factory=list)

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
            want, got = want[:keep], got[:keep]
        self._add_errors(want, got, indices)
        if self.tensor.num_classes and self.is_batched:
            self.torch_classes.append(want.argmax(axis=1))
            self.onnx_classes.append(got.argmax(axis=1))

    def _add_errors(self, want: "Array", got: "Array", indices: "Indices") -> None:
        import numpy as np

        exact = want.dtype.kind in "iub"
        atol, rtol = (0.0, 0.0) if exact else (self.settings.atol, self.settings.rtol)
        want, got = want.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(want) & np.isfinite(got)
        size = np.where(finite, np.abs(want), 0.0)
        error = np.abs(np.subtract(got, want, where=finite, out=np.zeros_like(want)))
        relative = np.divide(error, size, where=size > 0, out=np.zeros_like(error))
        if self.is_batched and error.size and (self.worst_sample is None or error.max() > self.max_abs):
            self.worst_sample = int(indices[np.unravel_index(error.argmax(), error.shape)[0]])
        self.num_values += int(finite.sum())
        self.num_nonzero += int((size > 0).sum())
        self.num_non_finite += int((~finite).sum())
        self.num_beyond += int((error > atol + rtol * size).sum())
        self.max_abs = max(self.max_abs, float(error.max(initial=0.0)))
        self.sum_abs += float(error.sum())
        self.max_rel = max(self.max_rel, float(relative.max(initial=0.0)))
        self.sum_rel += float(relative.sum())
        self.atol_needed = max(self.atol_needed, float((error - rtol * size).max(initial=0.0)))

    def classes(self) -> "tuple[Array, Array]":
        """Predicted classes in torch and in ONNX Runtime."""
        import numpy as np

        return np.concatenate(self.torch_classes), np.concatenate(self.onnx_classes)

    def result(self, provider: str, batch_size: int, num_samples: int) -> OutputParity:
        """The figures."""
        agreement = None
        if self.torch_classes:
            torch_classes, onnx_classes = self.classes()
            agreement = float((torch_classes == onnx_classes).mean())
        return OutputParity(
            provider=provider,
            batch_size=batch_size,
            output=self.tensor.name,
            num_samples=num_samples,
            max_abs_error=self.max_abs,
            mean_abs_error=self.sum_abs / max(self.num_values, 1),
            max_rel_error=self.max_rel,
            mean_rel_error=self.sum_rel / max(self.num_nonzero, 1),
            worst_sample=self.worst_sample,
            num_beyond_tolerance=self.num_beyond,
            num_non_finite=self.num_non_finite,
            atol_needed=self.atol_needed,
            agreement=agreement,
        )
