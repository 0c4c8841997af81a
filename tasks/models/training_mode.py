"""Operations that act as while training, frozen in a saved program or trace: ``eval()`` does not reach them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError

if TYPE_CHECKING:
    import torch

_CHANCES = ("p", "dropout", "dropout_p")
"""Arguments of operators that are the probability of dropping a value."""


def acts_as_training(arguments: Mapping[str, object]) -> bool:
    """Whether an operator with these constant arguments, by name, drops values or uses batch statistics."""
    trains = arguments.get("train") is True or arguments.get("training") is True
    chances = [arguments[name] for name in _CHANCES if name in arguments]
    return trains if not chances else any(chances) and (trains or "dropout_p" in arguments)


def training_operations(module: "torch.jit.ScriptModule") -> list[str]:
    """Names of the operations of a TorchScript module that act as in training whatever mode it is in.

    A script asks the module for its mode when it runs; a trace has the mode of its tracing for good.
    """
    import torch

    found = []
    for node in _nodes(module.inlined_graph):
        if not node.kind().startswith("aten::"):
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        given = {name: value.toIValue() for name, value in zip(names, node.inputs(), strict=False)}
        if acts_as_training(given):
            found.append(node.kind().removeprefix("aten::"))
    return list(dict.fromkeys(found))


def require_evaluation(operations: Iterable[str], what: str, remedy: str) -> None:
    """Refuse a model that would go on training.

    Args:
        operations: Those that act as in training.
        what: What messages call the model's file.
        remedy: What to do before what.

    Raises:
        ExportError: There are some.
    """
    named = ", ".join(operations)
    if named:
        raise ExportError(
            f"{what} was saved in training mode: {named} would act as while training, so that a sample's answer "
            f"depends on chance or on its neighbours. {remedy}"
        )


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
