"""What a pipeline answers."""

from typing import Literal

from pydantic import Field

from trainyard.tasks.specs.policy import StageName
from trainyard.tasks.specs.spec import Spec


class StageOutcome(Spec):
    """How one stage went."""

    stage: StageName
    """The stage's name."""

    status: Literal["ran", "cached"]
    """Whether the stage ran, or a verified result of before was used."""

    attempts: int = Field(ge=1)
    """Attempts it took, the successful one included."""

    seconds: float = Field(ge=0)
    """Wall-clock seconds, retries and their delays included."""

    cache_key: str | None = None
    """Digest of everything that decides the result."""

    num_bytes: int = Field(default=0, ge=0)
    """Size in bytes of what the stage made."""


class ExportAttempt(Spec):
    """One way that was tried to turn the trained model into ONNX."""

    exporter: Literal["dynamo", "torchscript"]
    """The exporter of ``torch.onnx``."""

    strict: bool | None = None
    """Mode of ``torch.export``; None where it was not called."""

    opset: int | None = None
    """Opset asked for; None for the exporter's own default."""

    error: str | None = None
    """Why it failed; None for the one that succeeded."""

    @property
    def description(self) -> str:
        """For people: ``dynamo exporter, strict, opset 20``."""
        mode = "" if self.strict is None else ", strict" if self.strict else ", non-strict"
        name = "dynamo" if self.exporter == "dynamo" else "TorchScript"
        return f"{name} exporter{mode}, {'default opset' if self.opset is None else f'opset {self.opset}'}"


class ValidationSummary(Spec):
    """The verdict of the validation stage."""

    passed: bool
    """Whether every check passed."""

    max_abs_error: float
    """Largest |onnx - torch| over all samples, outputs, batch sizes and providers."""

    max_rel_error: float
    """Largest |onnx - torch| / |torch| likewise, where torch's value is not zero."""

    agreement: float | None
    """Fraction of samples with the same predicted class; None where the model is not a classifier."""

    num_samples: int = Field(ge=0)
    """Samples compared."""

    latency_ms: float | None
    """Median milliseconds of one ONNX Runtime call on a batch of one."""

    metrics: dict[str, float] = Field(default_factory=dict)
    """Quality on the held-out labels in ONNX Runtime, for example accuracy."""

    compared_by: tuple[str, ...] = ()
    """The metrics that decide whether another version is better; all of them where none are named."""

    samples_sha256: str | None = None
    """Digest of the samples that the metrics were measured on: only metrics of the same samples can be compared."""

    @property
    def deciding_metrics(self) -> dict[str, float]:
        """The metrics that versions are compared by, with their values."""
        return {name: value for name, value in self.metrics.items() if not self.compared_by or name in self.compared_by}


class PipelineResult(Spec):
    """What ``training_pipeline`` returns."""

    run_id: str
    """Id of the Prefect flow run."""

    run_url: str | None = None
    """Its page in the Prefect UI, where a server with one is configured."""

    metrics: dict[str, float]
    """Final value of every metric that rank 0 logged."""

    stages: dict[StageName, StageOutcome]
    """One outcome a stage, in the order of the pipeline."""

    model_uri: str | None = None
    """Address of the registered model."""

    onnx_path: str | None = None
    """A local, verified copy of the ONNX model."""

    report_path: str | None = None
    """A local HTML page that shows the validation."""

    validation: ValidationSummary | None = None
    """The verdict, or None where the pipeline ended before validation."""
