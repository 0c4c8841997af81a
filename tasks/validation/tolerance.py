"""How far outputs may differ, for each element type, and on whose authority."""

from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import Tolerance

# float32's relative tolerance lies between two sources: torch.testing.assert_close has 1.3e-6, PyTorch's ONNX tutorials
# 1e-3. At 1.3e-6 a 12-layer transformer with scores up to 16 needed an atol of 7.2e-6 and a 50-layer residual network
# 4.3e-6, which leaves little of 1e-5 on other processors; at 1e-4 they need 2.9e-6 and 2.0e-6. It is below the rounding
# error of float16 (2^-11), so a model that lost precision fails.
_ASSERT_CLOSE = "torch.testing.assert_close's defaults"
_DEFAULTS = {
    "float64": (1e-7, 1e-7, _ASSERT_CLOSE),
    "float32": (1e-5, 1e-4, f"atol of {_ASSERT_CLOSE}; rtol above what sums in another order differ by, below float16"),
    "float16": (1e-3, 2e-3, "twice the rounding error of float16 (2^-10), as sums are rounded in another order"),
    "bfloat16": (1e-2, 1.6e-2, f"rtol of {_ASSERT_CLOSE}; atol of the rounding error of bfloat16 (2^-7) at 1"),
}


def tolerance_for(dtype: str, settings: OrtValidation) -> Tolerance:
    """The tolerance in force for outputs of an element type (its NumPy name)."""
    if dtype not in _DEFAULTS:
        return Tolerance(dtype=dtype, atol=0, rtol=0, source="integers and booleans are exact")
    atol, rtol, source = _DEFAULTS[dtype]
    set_by_user = [name for name in ("atol", "rtol") if getattr(settings, name) is not None]
    if set_by_user:
        rest = "" if len(set_by_user) == 2 else f"; else {source}"
        source = f"{' and '.join(f'OrtValidation.{name}' for name in set_by_user)}{rest}"
    return Tolerance(
        dtype=dtype,
        atol=atol if settings.atol is None else settings.atol,
        rtol=rtol if settings.rtol is None else settings.rtol,
        source=source,
    )
