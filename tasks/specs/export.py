"""How the trained model becomes ONNX."""

from pydantic import Field

from trainyard.tasks.specs.spec import Spec


class OnnxExport(Spec):
    """Settings of the export stage (``torch.export`` and the dynamo ONNX exporter)."""

    model_file: str | None = Field(default=None, title="Model file", examples=["model.pt2"])
    """Path inside ``outputs/`` of the program that the script saved; by default the one ``.pt2`` file."""

    opset: int | None = Field(default=None, ge=18, le=25, title="Opset")
    """ONNX opset version; the exporter's own default when empty."""

    dynamic_batch: bool = Field(default=True, title="Dynamic batch")
    """The first axis of every input takes any size. A program saved with a fixed batch is then an error."""
