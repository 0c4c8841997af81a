"""ONNX Runtime sessions. The one module that imports onnxruntime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import InvalidInputError, ValidationFailedError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


_PROVIDER_OPTIONS = {
    "CUDAExecutionProvider": {"use_tf32": "0"},  # its default rounds float32 products to 10 bits, far beyond parity
}


@dataclass(frozen=True, slots=True)
class OrtModel:
    """A model in ONNX Runtime, on one execution provider and no other.

    Args:
        session: An ``onnxruntime.InferenceSession``.
    """

    session: Any

    @property
    def provider(self) -> str:
        """The execution provider that nodes are offered to first."""
        return str(self.session.get_providers()[0])

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """Run the model.

        Raises:
            ValidationFailedError: ONNX Runtime refused the inputs, or failed.
        """
        try:
            return list(self.session.run(None, dict(inputs)))
        except _runtime_errors() as error:
            raise ValidationFailedError(f"ONNX Runtime failed: {_brief(error)}") from error


def require_providers(providers: tuple[str, ...]) -> None:
    """Refuse execution providers that this machine's ONNX Runtime does not have.

    Raises:
        InvalidInputError: Names all of them, and those that it has.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    missing = [provider for provider in providers if provider not in available]
    if missing:
        problem = f"{', '.join(missing)} is not in onnxruntime {onnxruntime.__version__} of this machine"
        raise InvalidInputError(
            f"OrtValidation.providers: {problem}; available: {', '.join(available)}. Choose one of these, or "
            "install the onnxruntime package that has it (for CUDA: onnxruntime-gpu).",
            problems=(problem,),
        )


def open_model(path: Path, provider: str, *, spinning: bool = True, profile_prefix: str | None = None) -> OrtModel:
    """Load a model for one provider, with no silent fallback to another.

    Args:
        path: ``model.onnx``; external data lies beside it.
        provider: The execution provider.
        spinning: Let ONNX Runtime's idle threads wait busily, as is its default. Calls are then fastest, but
            whatever runs in turns with them is robbed of its cores: on a busy machine torch took three to nine
            times as long.
        profile_prefix: Write a profile below this prefix, when the session ends it.

    Raises:
        ValidationFailedError: ONNX Runtime cannot load it, or not on this provider.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # what a team trains is nobody else's business
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    try:
        providers = [(provider, _PROVIDER_OPTIONS.get(provider, {}))]
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except _runtime_errors() as error:
        raise ValidationFailedError(f"ONNX Runtime cannot load the model: {_brief(error)}") from error
    model = OrtModel(session)
    if model.provider != provider:
        raise ValidationFailedError(f"ONNX Runtime chose {model.provider} in place of {provider}")
    return model


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: classes without a common base but Exception, and built-in ones."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
