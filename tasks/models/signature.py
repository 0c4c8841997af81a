"""What goes into a model and what comes out: names, element types, shapes."""

from pydantic import Field

from trainyard.tasks.specs.spec import Spec

BATCH_AXIS = "batch"
"""Name of the dynamic first axis."""


class TensorSignature(Spec):
    """One input or output."""

    name: str
    """Its name in the ONNX graph; inputs have the names of the parameters of the model's ``forward``."""

    dtype: str
    """NumPy name of the element type, for example ``float32``."""

    shape: tuple[int | str, ...]
    """Sizes; a name stands for a dynamic axis, ``batch`` for the samples."""

    @property
    def batch_is_dynamic(self) -> bool:
        """Whether the first axis takes any size."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    @property
    def num_classes(self) -> int | None:
        """Classes of a classifier's output (floats [batch, classes], at least two), else None."""
        if len(self.shape) != 2 or not self.dtype.startswith(("float", "bfloat")):
            return None
        classes = self.shape[1]
        return classes if isinstance(classes, int) and classes >= 2 else None


class ModelSignature(Spec):
    """What a model takes and gives."""

    inputs: tuple[TensorSignature, ...] = Field(min_length=1)
    """In the order of ``forward``."""

    outputs: tuple[TensorSignature, ...] = Field(min_length=1)
    """In the order in which ``forward`` returns them."""

    batch_size: int = Field(ge=1)
    """Batch size of the example that the program was exported with."""

    @property
    def batch_is_dynamic(self) -> bool:
        """Whether every input takes any batch size."""
        return all(tensor.batch_is_dynamic for tensor in self.inputs)

    def is_batched(self, tensor: TensorSignature) -> bool:
        """Whether an output's first axis is the sample."""
        first = BATCH_AXIS if self.batch_is_dynamic else self.batch_size
        return tensor.shape[:1] == (first,)

    @property
    def classifier_output(self) -> int | None:
        """Position of the first output that holds a score a class, or None."""
        candidates = (n for n, tensor in enumerate(self.outputs) if tensor.num_classes and self.is_batched(tensor))
        return next(candidates, None)
