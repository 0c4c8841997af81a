"""How the trained model becomes ONNX."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from trainyard.tasks.specs.form import AXES, PARAMETERS
from trainyard.tasks.specs.spec import Spec

Fallback = Literal["strict", "torchscript", "lower_opset"]
"""What may be tried after the dynamo exporter failed."""

ElementType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"
]  # fmt: skip


class InputDescription(Spec):
    """One input of the model, where no example of it was saved."""

    name: str = Field(min_length=1)
    """The parameter of ``forward``."""

    shape: tuple[Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Sizes; a name stands for an axis of any size: ``["batch", 3, 224, 224]``."""

    dtype: ElementType = "float32"
    """Element type."""

    minimum: float = 0
    """Least value of the random example; of integers, for example the first token."""

    maximum: float = 1
    """Greatest value of the random example; of integers, for example the last token."""

    @model_validator(mode="after")
    def _ordered(self) -> "InputDescription":
        if self.minimum > self.maximum:
            raise ValueError(f"input {self.name!r}: minimum {self.minimum:g} is above maximum {self.maximum:g}")
        return self


class OnnxExport(Spec):
    """Settings of the export stage (``torch.export`` and the dynamo ONNX exporter)."""

    model_file: str | None = Field(default=None, title="Model file", examples=["model.pt2"])
    """Path inside ``outputs/`` of the model that the script saved; by default the one ``.pt2`` file, else the one
    ``.safetensors``, ``.pt``, ``.pth``, … file."""

    module: str | None = Field(default=None, title="Model factory", examples=["model:build"])
    """``package.module:factory`` in the source directory: called without arguments (or with ``module_params``), it
    gives the ``torch.nn.Module`` that a saved state dict or safetensors file fits."""

    module_params: Annotated[dict[str, JsonValue], PARAMETERS] = Field(default_factory=dict, title="Factory parameters")
    """Keyword arguments of the factory."""

    allow_pickle: bool = Field(default=False, title="Allow pickled modules")
    """Load a whole pickled module (``torch.save(model, …)``). Unpickling runs whatever code the file holds, so it
    happens in a process of its own, and only if this is set."""

    inputs: tuple[InputDescription, ...] | None = Field(default=None, title="Inputs", min_length=1)
    """The model's inputs, where neither the saved program nor ``outputs/`` holds an example of them."""

    dynamic_batch: bool = Field(default=True, title="Dynamic batch")
    """The first axis of every input takes any size. A program saved with a fixed batch is then an error."""

    dynamic_axes: Annotated[dict[str, dict[Annotated[int, Field(ge=0)], str]], AXES] = Field(
        default_factory=dict, title="Dynamic axes"
    )
    """More axes of any size, by input and axis: ``{"tokens": {1: "sequence"}}``."""

    output_names: tuple[str, ...] | None = Field(default=None, min_length=1, title="Output names")
    """Names of the outputs in order; by default the keys that ``forward`` returns, else ``output``, or ``output_0``
    and so on."""

    opset: int | None = Field(default=None, ge=18, le=25, title="Opset")
    """ONNX opset version; the exporter's own default when empty."""

    fallbacks: tuple[Fallback, ...] = Field(default=("strict", "torchscript"), title="Fallbacks")
    """What may be tried where the dynamo exporter fails, or gives a model that is invalid or has fixed sizes: strict
    mode, then the TorchScript exporter, then, only if named here, all of these at each lower opset; each attempt is
    recorded."""

    labels: tuple[str, ...] | None = Field(default=None, title="Labels")
    """Names of the classes, kept in the bundle; by default ``labels.json`` or ``labels.txt`` of ``outputs/``."""

    preprocessing: str | None = Field(default=None, title="Preprocessing")
    """What must be done to raw data before it goes in, in words, kept in the bundle; by default
    ``preprocessing.md``, ``.txt`` or ``.json`` of ``outputs/``."""

    @field_validator("module")
    @classmethod
    def _names_a_factory(cls, module: str | None) -> str | None:
        if module is not None:
            name, _, factory = module.partition(":")
            if not all(part.isidentifier() for part in [*name.split("."), factory]):
                raise ValueError(f"{module!r} is not 'package.module:factory', for example 'model:build'")
        return module

    @field_validator("fallbacks")
    @classmethod
    def _each_once(cls, fallbacks: tuple[Fallback, ...]) -> tuple[Fallback, ...]:
        if len(set(fallbacks)) < len(fallbacks):
            raise ValueError(f"{', '.join(fallbacks)} names one twice")
        return fallbacks

    @model_validator(mode="after")
    def _params_have_a_factory(self) -> "OnnxExport":
        if self.module_params and self.module is None:
            raise ValueError("module_params are for a factory, but module names none")
        return self

    @property
    def needs_source(self) -> bool:
        """Whether the model can only be loaded with the classes of the source snapshot."""
        return self.module is not None or self.allow_pickle
