"""The ways of exporting, tried in order until one succeeds; each attempt is recorded with why it failed."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from trainyard.tasks.errors import ExportError
from trainyard.tasks.export.convert import default_opset
from trainyard.tasks.models.kinds import ModelKind
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.results import ExportAttempt

if TYPE_CHECKING:
    from onnxscript import ir

LOWEST_OPSET = 18
_MOST_REASON = 600
_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = re.compile(r"<class '[\w.]*?(\w+)'>: (.*)")
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_USER_CODE = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+)[^\n]*\n\s*(?P<code>[^\n]+)')

BRANCHES = (
    "the model branches on the values of a tensor (data-dependent control flow), which a graph cannot follow; write "
    "it with torch.where or torch.cond"
)


def attempts_for(settings: OnnxExport, kind: ModelKind) -> list[ExportAttempt]:
    """What to try, in order: the dynamo exporter, and the fallbacks that the settings allow.

    A saved program has been through ``torch.export`` already; a TorchScript file is for the TorchScript exporter only.
    """
    opset = settings.opset
    script = ExportAttempt(exporter="torchscript", opset=opset)
    if kind == "torchscript":
        ways = [script]
    elif kind == "program":
        ways = [ExportAttempt(exporter="dynamo", opset=opset)]
    else:
        modes = (False, True) if "strict" in settings.fallbacks else (False,)
        ways = [ExportAttempt(exporter="dynamo", strict=strict, opset=opset) for strict in modes]
    if "torchscript" in settings.fallbacks and script not in ways:
        ways.append(script)
    if "lower_opset" not in settings.fallbacks:
        return ways
    lower = range((opset or default_opset()) - 1, LOWEST_OPSET - 1, -1)
    return ways + [way.model_copy(update={"opset": number}) for number in lower for way in ways]


def climb(
    attempts: list[ExportAttempt], write: "Callable[[ExportAttempt], ir.Model]"
) -> "tuple[ir.Model, tuple[ExportAttempt, ...]]":
    """Try one attempt after another.

    Args:
        attempts: What to try, in order.
        write: Makes the model in one way and proves that it is what was asked for, or raises.

    Returns:
        The model, and every attempt that was made.

    Raises:
        ExportError: None succeeded; names each with its reason.
    """
    made: list[ExportAttempt] = []
    for attempt in attempts:
        try:
            model = write(attempt)
        except Exception as error:  # runs the model's own forward, which may raise anything, in torch's exporters
            made.append(attempt.model_copy(update={"error": reason_of(error)}))
            continue
        return model, (*made, attempt)
    raise _none_succeeded(made)


def _none_succeeded(made: list[ExportAttempt]) -> ExportError:
    import torch

    lines = "\n".join(f"  - {attempt.description}: {attempt.error}" for attempt in made)
    return ExportError(
        f"The ONNX exporters of torch {torch.__version__} cannot express the model; tried:\n{lines}\n"
        "Replace in the model what the first of them names, or choose another OnnxExport.opset."
    )


def reason_of(error: BaseException) -> str:
    """Why an exporter failed, in a sentence, the same for the same model."""
    chain = list(_chain(error))
    data_dependent = next(
        (e for e in chain if "DataDependent" in type(e).__name__ or "data-dependent branching" in str(e).lower()), None
    )
    if data_dependent is not None:
        return BRANCHES + _where(str(data_dependent))
    text = _TERMINAL_COLOUR.sub("", str(error))
    if isinstance(error, ExportError):  # says it in full sentences
        return text.rstrip(". ")
    causes = _CAUSE.findall(text)  # the exporter's summary lists causes innermost first
    reason = f"{causes[0][0]}: {causes[0][1]}" if causes else f"{type(error).__name__}: {' '.join(text.split())}"
    return _ADDRESS.sub("0x…", reason)[:_MOST_REASON].rstrip(". ")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _where(text: str) -> str:
    """The line of the model that torch names, if it names one."""
    lines = [found for found in _USER_CODE.finditer(text) if "/torch/" not in found["file"]]
    if not lines:
        return ""
    found = lines[-1]
    return f" ({found['file'].rsplit('/', 1)[-1]}:{found['line']}: {found['code'].strip()})"
