"""Whether a sample's answer is its own: the trained model is asked again, with other samples beside it."""

from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import Check
from trainyard.tasks.validation.parity import run_reference
from trainyard.tasks.validation.reference import Reference
from trainyard.tasks.validation.samples import Samples
from trainyard.tasks.validation.tolerance import tolerance_for

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def independence_check(
    reference: Reference, signature: ModelSignature, samples: Samples, batch_size: int, settings: OrtValidation
) -> Check | None:
    """Half of a batch keeps its samples, the other half gets copies of the first one: answers to the kept must stay.

    Batch statistics and dropout that were left in the model can be the same in both runtimes, so parity does not show
    them; this does. The batch has the same size both times, so that rounding is the same, too.

    Args:
        reference: The trained model.
        signature: What it takes and gives.
        samples: What it is run on.
        batch_size: Samples of the batch.
        settings: The tolerances.

    Returns:
        None where there is no telling: a batch or a sample alone, no output with the sample first, or a model that does
        not run, which other checks say.
    """
    import numpy as np

    if batch_size < 2 or len(samples.indices) < 2:
        return None
    kept = (batch_size + 1) // 2
    inputs = samples.batch(batch_size)
    positions = np.where(np.arange(batch_size) < kept, np.arange(batch_size), 0)
    try:
        first = run_reference(reference, inputs)
        second = run_reference(reference, {name: array[positions] for name, array in inputs.items()})
    except ValidationFailedError:
        return None
    # An output that is as long as the longest sample of its batch has another shape beside others.
    pairs = [
        (tensor, one[:kept], other[:kept])
        for tensor, one, other in zip(signature.outputs, first, second, strict=False)
        if signature.is_batched(tensor) and one.shape == other.shape
    ]
    if not pairs:
        return None
    found = {tensor.name: _difference(one, other) for tensor, one, other in pairs}
    wrong = [tensor.name for tensor, one, other in pairs if not _is_same(one, other, tensor.dtype, settings)]
    said = ", ".join(f"{name} differs by up to {found[name]:.3g}" for name in wrong or found)
    advice = "; save the model in evaluation mode, or allow it with OrtValidation(batch_dependent=True)"
    return Check(
        name=f"torch, batch {batch_size}: samples independent",
        passed=not wrong,
        expected="the trained model's answer to a sample does not depend on chance, nor on the others of its batch",
        found=said + (advice if wrong else ""),
    )


def _difference(one: "Array", other: "Array") -> float:
    import numpy as np

    with np.errstate(invalid="ignore"):
        difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.nan_to_num(difference, nan=0.0).max(initial=0.0))


def _is_same(one: "Array", other: "Array", dtype: str, settings: OrtValidation) -> bool:
    """Within the default tolerance at least: a bound of zero is meant for the runtimes, not for torch with itself."""
    import numpy as np

    bounds = [tolerance_for(dtype, given) for given in (settings, OrtValidation())]
    atol, rtol = max(bound.atol for bound in bounds), max(bound.rtol for bound in bounds)
    return bool(np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
