"""What to run both models on: the run's held-out samples, or seeded random inputs within the signature."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.errors import ExportError, ValidationFailedError
from trainyard.tasks.models.examples import read_arrays
from trainyard.tasks.models.layout import LABELS_ARRAY, SAMPLES_FILE
from trainyard.tasks.models.signature import ModelSignature, TensorSignature
from trainyard.tasks.specs.export import InputDescription
from trainyard.tasks.validation.figures import SamplesUsed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

NUM_RANDOM_SAMPLES = 256
RANDOM_SEED = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs for both models.

    Args:
        inputs: One array an input, by name; the first axis is the sample.
        labels: int or bool [num_samples], float [num_samples, …], or None.
        indices: int [num_samples]: where each sample is in the run's samples file.
        used: Where they come from.
    """

    inputs: "dict[str, Array]"
    labels: "Array | None"
    indices: "npt.NDArray[np.int64]"
    used: SamplesUsed

    def batch(self, batch_size: int) -> "dict[str, Array]":
        """The first samples as one batch, repeated where there are fewer."""
        import numpy as np

        positions = np.resize(np.arange(len(self.indices)), batch_size)
        return {name: array[positions] for name, array in self.inputs.items()}


def read_samples(data: bytes, signature: ModelSignature, max_samples: int) -> Samples:
    """The samples that the training script left, checked against the model's signature.

    Args:
        data: An ``.npz`` file: arrays named like the inputs, [num_samples, …], and perhaps ``labels``.
        signature: What the model takes.
        max_samples: Use at most this many, spread evenly.

    Raises:
        ValidationFailedError: They do not fit the model; names every problem.
    """
    try:
        arrays = read_arrays(data, SAMPLES_FILE)
    except ExportError as error:
        raise ValidationFailedError(str(error)) from error
    problems = _problems(arrays, signature)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ValidationFailedError(f"{SAMPLES_FILE} in the run's outputs does not fit the model:\n{lines}")
    unused = sorted(set(arrays) - {tensor.name for tensor in signature.inputs} - {LABELS_ARRAY})
    if unused:
        log.warning("%s holds arrays that nothing uses: %s", SAMPLES_FILE, ", ".join(unused))
    num_available = len(arrays[signature.inputs[0].name])
    indices = spread(num_available, max_samples)
    labels = arrays[LABELS_ARRAY][indices] if LABELS_ARRAY in arrays else None
    return Samples(
        inputs={tensor.name: arrays[tensor.name][indices] for tensor in signature.inputs},
        labels=labels,
        indices=indices,
        used=SamplesUsed(
            source="run",
            num_samples=len(indices),
            num_available=num_available,
            labelled=labels is not None,
            sha256=digest_bytes(data),
        ),
    )


def random_samples(
    example_inputs: "Mapping[str, Array]", described: tuple[InputDescription, ...] | None, max_samples: int
) -> Samples:
    """Seeded random inputs shaped like the model's example.

    Floats are standard normal, integers lie within the range of the example's; where the inputs were described, both
    lie within the range that was.
    """
    import numpy as np

    rng = np.random.default_rng(RANDOM_SEED)
    count = min(NUM_RANDOM_SAMPLES, max_samples)
    ranges = {each.name: (each.minimum, each.maximum) for each in described or ()}
    inputs = {name: _random_like(rng, example, count, ranges.get(name)) for name, example in example_inputs.items()}
    used = SamplesUsed(source="random", num_samples=count, num_available=0, labelled=False, seed=RANDOM_SEED)
    return Samples(inputs=inputs, labels=None, indices=np.arange(count), used=used)


def spread(num_available: int, num_wanted: int) -> "npt.NDArray[np.int64]":
    """Up to ``num_wanted`` indices, evenly spread: data that is sorted by class stays represented."""
    import numpy as np

    count = min(num_available, num_wanted)
    return np.arange(count, dtype=np.int64) * num_available // max(count, 1)


def _random_like(
    rng: "np.random.Generator", example: "Array", count: int, limits: tuple[float, float] | None
) -> "Array":
    shape = (count, *example.shape[1:])
    if example.dtype.kind == "f":
        values = rng.standard_normal(shape) if limits is None else rng.uniform(*limits, shape)
        return values.astype(example.dtype)
    if example.dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(example.dtype)
    low, high = (example.min(), example.max()) if limits is None else (round(limits[0]), round(limits[1]))
    return rng.integers(low, high, shape, endpoint=True).astype(example.dtype)


def _problems(arrays: "dict[str, Array]", signature: ModelSignature) -> list[str]:
    problems = [problem for tensor in signature.inputs for problem in _input_problems(arrays, tensor)]
    labels = arrays.get(LABELS_ARRAY)
    if labels is not None:
        problems += _label_problems(labels)
    used = {name: arrays[name] for name in (*(t.name for t in signature.inputs), LABELS_ARRAY) if name in arrays}
    lengths = {name: len(array) if array.ndim else 0 for name, array in used.items()}
    if len(set(lengths.values())) > 1:
        problems.append(f"expected as many samples in every array; found {lengths}")
    if not any(lengths.values()):
        problems.append("expected at least one sample; found none")
    return problems


def _label_problems(labels: "Array") -> list[str]:
    import numpy as np

    if labels.dtype.kind not in "iubf" or not labels.ndim or (labels.dtype.kind != "f" and labels.size != len(labels)):
        return [
            "labels: expected classes, integers [num_samples], or numbers, floats shaped like an output; found "
            f"{_described(labels)}"
        ]
    num_bad = int((~np.isfinite(labels)).sum())
    return [f"labels: expected finite numbers; found {num_bad:,} that are NaN or infinite"] if num_bad else []


def _input_problems(arrays: "dict[str, Array]", tensor: TensorSignature) -> list[str]:
    expected = f"{tensor.dtype} {['num_samples', *tensor.shape[1:]]}"
    array = arrays.get(tensor.name)
    if array is None:
        return [f"input {tensor.name!r} is missing: expected {expected}; found {', '.join(arrays) or 'no arrays'}"]
    sizes = tensor.shape[1:]
    fits = array.ndim == len(tensor.shape) and all(
        want == got for want, got in zip(sizes, array.shape[1:], strict=True) if isinstance(want, int)
    )
    if array.dtype.name != tensor.dtype or not fits:
        return [f"input {tensor.name!r}: expected {expected}; found {_described(array)}"]
    return []


def _described(array: "Array") -> str:
    return f"{array.dtype.name} {list(array.shape)}"
