"""Run both models on the same batches and measure how their outputs differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import OutputParity
from trainyard.tasks.validation.meter import Meter
from trainyard.tasks.validation.quality import Goal
from trainyard.tasks.validation.reference import Reference
from trainyard.tasks.validation.samples import Samples, spread
from trainyard.tasks.validation.session import OrtModel
from trainyard.tasks.validation.tolerance import tolerance_for

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
        answers: The values of the output that answers the labels, in torch and in ONNX Runtime; None where no output
            does.
        positions: Which samples were compared.
    """

    outputs: tuple[OutputParity, ...]
    answers: "tuple[Array, Array] | None"
    positions: "Indices"


def compare(
    reference: Reference,
    model: OrtModel,
    signature: ModelSignature,
    samples: Samples,
    batch_size: int,
    settings: OrtValidation,
    goal: Goal,
    sizes: Mapping[str, int] | None = None,
    *,
    keeps_answers: bool = False,
) -> Comparison:
    """Compare both models over the samples, in batches of exactly ``batch_size``.

    Args:
        reference: The trained model.
        model: The ONNX model.
        signature: What it takes and gives.
        samples: What to run both on.
        batch_size: Samples of a batch.
        settings: The tolerances.
        goal: Which output answers the labels, if there are any.
        sizes: Shorter sizes for other named axes, whose inputs are cut to them.
        keeps_answers: Whether the values that answer the labels are wanted.

    Raises:
        ValidationFailedError: One of them cannot run such a batch, or their outputs are not alike in shape.
    """
    meters = [
        Meter(
            tensor,
            signature.is_batched(tensor),
            tolerance_for(tensor.dtype, settings),
            has_classes=bool(tensor.num_classes) and signature.is_batched(tensor) and goal.has_classes(position),
            keeps_answers=keeps_answers and position == goal.output,
        )
        for position, tensor in enumerate(signature.outputs)
    ]
    num_samples = len(samples.indices)
    positions = spread(num_samples, MAX_SINGLE_CALLS if batch_size == 1 else num_samples)
    for batch, keep in _batches(positions, batch_size):
        inputs = cut({name: array[batch] for name, array in samples.inputs.items()}, signature, sizes or {})
        expected, found = run_reference(reference, inputs), model(inputs)
        if not len(expected) == len(found) == len(meters):
            raise ValidationFailedError(
                f"torch gives {len(expected)} outputs, ONNX Runtime {len(found)}; expected {len(meters)}"
            )
        for meter, want, got in zip(meters, expected, found, strict=True):
            meter.update(want, got, samples.indices[batch], keep)
    labels = None
    if samples.labels is not None and samples.labels.dtype.kind in "iub":
        labels = dict(zip(samples.indices, samples.labels.reshape(num_samples, -1)[:, 0], strict=True))
    return Comparison(
        outputs=tuple(
            meter.result(model.provider, batch_size, len(positions), dict(sizes or {}), labels) for meter in meters
        ),
        answers=meters[goal.output].answers() if keeps_answers and goal.output is not None else None,
        positions=positions,
    )


def cut(inputs: "dict[str, Array]", signature: ModelSignature, sizes: Mapping[str, int]) -> "dict[str, Array]":
    """The inputs with their named axes cut to some sizes."""
    shapes = {tensor.name: tensor.shape for tensor in signature.inputs}
    slices = {
        name: tuple(slice(sizes.get(size) if isinstance(size, str) else None) for size in shapes[name])
        for name in inputs
    }
    return {name: array[slices[name]] for name, array in inputs.items()}


def _batches(positions: "Indices", batch_size: int) -> "Iterator[tuple[Indices, int]]":
    """Full batches, the last filled up from the start; of each, the first ``keep`` samples count."""
    import numpy as np

    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        yield np.concatenate([batch, np.resize(positions, batch_size - len(batch))]), len(batch)


def run_reference(reference: Reference, inputs: "dict[str, Array]") -> "list[Array]":
    """Run the trained model.

    Raises:
        ValidationFailedError: It refused the inputs, for example a batch size beyond its range.
    """
    try:
        return reference(inputs)
    except Exception as error:  # torch's guards raise AssertionError, RuntimeError and classes of their own
        reason = " ".join(str(error).split())[:300]
        raise ValidationFailedError(f"the trained torch model failed: {type(error).__name__}: {reason}") from error
