"""What can be known to be wrong with a validation before anything is trained."""

from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.session import require_providers

_ALWAYS_THERE = ("CPUExecutionProvider",)


def validation_problems(settings: OrtValidation) -> list[str]:
    """Execution providers that this machine's ONNX Runtime does not have, one sentence each."""
    if all(provider in _ALWAYS_THERE for provider in settings.providers):
        return []  # without importing ONNX Runtime
    try:
        require_providers(settings.providers)
    except InvalidInputError as error:
        return [str(error)]
    return []
