"""A trained module that is not a ``torch.export`` program: loaded and run, in a ``ModelProcess`` only."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.kinds import DESCRIPTIONS, ModelKind
from trainyard.tasks.models.pickles import load_pickle
from trainyard.tasks.models.trained import Axes
from trainyard.tasks.models.training_mode import require_evaluation, training_operations
from trainyard.tasks.specs.export import OnnxExport

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch.export import ExportedProgram

    Array = npt.NDArray[Any]

_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model")
_PARALLEL_PREFIX = "module."
_MOST_NAMED = 6


@dataclass(frozen=True)
class EagerModel:
    """A module in evaluation mode on the CPU; see ``TrainedModel``.

    Args:
        kind: What it was saved as.
        module: The module.
        example_inputs: An example batch, by input name, in the order of ``forward``.
        parameters: Keyword of ``forward`` for each input; None passes them by position.
        was_training: Whether it was saved in training mode.
    """

    kind: ModelKind
    module: "torch.nn.Module"
    example_inputs: "Mapping[str, Array]"
    parameters: tuple[str, ...] | None
    was_training: bool

    def arguments(self, inputs: "Mapping[str, Array]") -> "tuple[tuple[Any, ...], dict[str, Any]]":
        """See ``TrainedModel``."""
        import torch

        tensors = [torch.from_numpy(inputs[name]) for name in self.example_inputs]
        if self.parameters is None:
            return tuple(tensors), {}
        return (), dict(zip(self.parameters, tensors, strict=True))

    def __call__(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        """See ``TrainedModel``."""
        return [leaf.numpy() for leaf in self._leaves(self._run(inputs))]

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """The keys of a dictionary of tensors; ``output``; or ``output_0``, ``output_1``, …."""
        returned = self._run(self.example_inputs)
        count = len(self._leaves(returned))
        if not count:
            raise ExportError(f"forward returns {type(returned).__name__} without any tensor in it.")
        if isinstance(returned, Mapping) and len(returned) == count:
            return tuple(str(key) for key in returned)
        return ("output",) if count == 1 else tuple(f"output_{n}" for n in range(count))

    def exported(self, axes: Axes, *, strict: bool) -> "ExportedProgram":
        """See ``TrainedModel``."""
        import torch

        positional, keywords = self.arguments(self.example_inputs)
        dims: dict[str, Any] = {}
        shapes = [
            {axis: dims.setdefault(name, torch.export.Dim(name)) for axis, name in axes[key].items()}
            for key in self.example_inputs
        ]
        # forward(*inputs) has one parameter for all of them
        by_parameter = (tuple(shapes),) if self.parameters is None else dict(zip(self.parameters, shapes, strict=True))
        return torch.export.export(self.module, positional, keywords, dynamic_shapes=by_parameter, strict=strict)

    def _run(self, inputs: "Mapping[str, Array]") -> Any:
        import torch

        positional, keywords = self.arguments(inputs)
        with torch.no_grad():
            return self.module(*positional, **keywords)

    @staticmethod
    def _leaves(returned: Any) -> "list[torch.Tensor]":
        import torch
        from torch.utils import _pytree as pytree

        return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]


def load_eager(
    path: Path, kind: ModelKind, settings: OnnxExport, source: Path, example: "Mapping[str, Array]"
) -> EagerModel:
    """Load a saved module.

    Args:
        path: The file.
        kind: What it is.
        settings: The factory, or the permission to unpickle.
        source: The training project; already on the import path.
        example: An example batch, by input name.

    Raises:
        ExportError: It cannot be loaded, or does not take these inputs; says why.
    """
    import torch

    module = _load(path, kind, settings, source)
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"The {DESCRIPTIONS[kind]} gives a {type(module).__name__}, not a torch.nn.Module.")
    was_training = module.training
    module = module.cpu().eval()
    if isinstance(module, torch.jit.ScriptModule):
        remedy = "Call model.eval() before torch.jit.trace or torch.jit.script."
        require_evaluation(training_operations(module), f"The {DESCRIPTIONS[kind]}", remedy)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    names, parameters = _matched(tuple(example), module)
    return EagerModel(kind, module, {name: example[name] for name in names}, parameters, was_training)


def _load(path: Path, kind: ModelKind, settings: OnnxExport, source: Path) -> Any:
    import torch

    if kind == "torchscript":
        load: Callable[..., Any] = torch.jit.load  # it has no annotations
        return load(path, map_location="cpu")
    if kind == "safetensors":
        return _with_weights(_read_safetensors(path), settings)
    if kind == "state_dict":
        return _with_weights(torch.load(path, map_location="cpu", weights_only=True), settings)
    loaded = load_pickle(path, source)
    return _with_weights(loaded, settings) if isinstance(loaded, Mapping) else loaded


def _read_safetensors(path: Path) -> "dict[str, torch.Tensor]":
    try:
        safetensors = import_module("safetensors.torch")  # there where a script that writes such files runs
    except ImportError as error:
        raise ExportError("A safetensors file needs the package safetensors: pip install safetensors.") from error
    return dict(safetensors.load_file(path))


def _with_weights(loaded: Any, settings: OnnxExport) -> "torch.nn.Module":
    """The module of the factory, with a state dict's weights."""
    state = _state_dict(loaded)
    module = _make_module(settings)
    expected = set(module.state_dict())
    if not any(name.startswith(_PARALLEL_PREFIX) for name in expected) and all(
        name.startswith(_PARALLEL_PREFIX) for name in state
    ):  # saved from a DataParallel or DistributedDataParallel wrapper
        state = {name.removeprefix(_PARALLEL_PREFIX): value for name, value in state.items()}
    missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
    if missing or unexpected:
        raise ExportError(
            f"The state dict is not that of {settings.module}: missing {_some(missing)}; unexpected "
            f"{_some(unexpected)}. Check OnnxExport.module and module_params."
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # sizes differ
        raise ExportError(f"The state dict does not fit {settings.module}: {' '.join(str(error).split())}") from error
    return module


def _state_dict(loaded: Any) -> "dict[str, torch.Tensor]":
    """The weights of a state dict, or of a checkpoint that holds one under a usual name."""
    import torch

    for candidate in (loaded, *(loaded.get(key) for key in _STATE_KEYS if isinstance(loaded, Mapping))):
        if isinstance(candidate, Mapping) and (
            not candidate or any(isinstance(value, torch.Tensor) for value in candidate.values())
        ):
            return {str(name): value for name, value in candidate.items()}
    found = f"a dictionary with {_some(map(str, loaded))}" if isinstance(loaded, Mapping) else type(loaded).__name__
    raise ExportError(f"Expected a state dict, or a checkpoint with one under {', '.join(_STATE_KEYS)}; found {found}.")


def _make_module(settings: OnnxExport) -> "torch.nn.Module":
    import torch

    assert settings.module is not None  # checked before the process was started
    name, _, factory = settings.module.partition(":")
    try:
        make = getattr(import_module(name), factory)
    except (ImportError, AttributeError) as error:
        raise ExportError(
            f"OnnxExport.module {settings.module!r} cannot be imported from the source directory: {error}."
        ) from error
    module = make(**settings.module_params)
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{settings.module} gives a {type(module).__name__}, not a torch.nn.Module.")
    return module


def _matched(names: tuple[str, ...], module: "torch.nn.Module") -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The inputs in the order of ``forward``, and their keywords (None: by position).

    An example of one array for a ``forward`` that needs one tensor needs no matching name.
    """
    parameters = _parameters(module)
    if parameters is None:
        return names, None
    required = [name for name, has_default in parameters.items() if not has_default]
    if len(names) == 1 and len(required or parameters) == 1 and names[0] not in parameters:
        return names, None if _is_script(module) else tuple(required or parameters)
    unknown, missing = [n for n in names if n not in parameters], [n for n in required if n not in names]
    if unknown or missing:
        raise ExportError(
            f"The example inputs are not those of forward({', '.join(parameters)}): "
            f"missing {_some(missing)}; unknown {_some(unknown)}. Name the arrays like the parameters."
        )
    ordered = tuple(name for name in parameters if name in names)
    return ordered, None if _is_script(module) else ordered


def _parameters(module: "torch.nn.Module") -> dict[str, bool] | None:
    """Names of the parameters of ``forward``, and whether each has a default; None where it takes any."""
    if _is_script(module):
        forward: Any = module.forward
        return {argument.name: argument.has_default_value() for argument in forward.schema.arguments[1:]}
    signature = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature):
        return None
    kept = [parameter for parameter in signature if parameter.kind is not parameter.VAR_KEYWORD]
    return {parameter.name: parameter.default is not parameter.empty for parameter in kept}


def _is_script(module: "torch.nn.Module") -> bool:
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def _some(names: Iterable[str]) -> str:
    named = list(names)
    rest = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return (", ".join(named[:_MOST_NAMED]) or "nothing") + rest
