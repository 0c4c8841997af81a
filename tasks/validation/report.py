"""The validation report: every check with its bound and what was found, and the figures behind it."""

from typing import Literal

from pydantic import Field

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.specs.results import ValidationSummary
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.specs.validation import OrtValidation

TOLERANCE_RULE = "abs(onnx - torch) <= atol + rtol * abs(torch) (numpy.allclose); integers and booleans equal"


class Check(Spec):
    """One thing that must hold."""

    name: str
    """What, and where: provider, batch size and output."""

    passed: bool
    """Whether it holds."""

    expected: str
    """The bound; depends on the settings only, never on a measurement."""

    found: str
    """The measurement."""


class SamplesUsed(Spec):
    """What both runtimes were run on."""

    source: Literal["run", "random"]
    """The run's own held-out samples, or seeded random inputs because it left none."""

    num_samples: int
    """Samples used."""

    num_available: int
    """Samples that the run left."""

    labelled: bool
    """Whether they have labels."""

    seed: int | None = None
    """Seed of random inputs."""


class OutputParity(Spec):
    """How one output differed, in one provider, at one batch size, over all samples compared."""

    provider: str
    batch_size: int
    output: str
    num_samples: int
    max_abs_error: float
    mean_abs_error: float
    max_rel_error: float
    """Of |onnx - torch| / |torch|, where torch's value is not zero."""

    mean_rel_error: float
    worst_sample: int | None
    """Index of the sample with the largest absolute error, in the run's samples file."""

    num_beyond_tolerance: int
    """Values outside the tolerance."""

    num_non_finite: int
    """Values that are NaN or infinite in either runtime; left out of the errors."""

    atol_needed: float
    """The smallest absolute tolerance that all values would meet."""

    agreement: float | None
    """Fraction of samples with the same class (largest score) in both; None where there are no classes."""


class QualityFigure(Spec):
    """A metric on labelled samples, in both runtimes."""

    provider: str
    metric: str
    num_samples: int
    torch: float
    onnxruntime: float
    difference: float
    """onnxruntime - torch."""


class Latency(Spec):
    """Milliseconds of one call, ONNX Runtime and eager torch on the same machine in the same run."""

    provider: str
    batch_size: int
    num_calls: int
    onnxruntime_p50_ms: float
    onnxruntime_p95_ms: float
    torch_p50_ms: float
    torch_p95_ms: float


class ValidationReport(Spec):
    """What was compared, how, and what came out."""

    bundle_sha256: str
    """Digest of the ONNX bundle."""

    outputs_sha256: str
    """Digest of the run's outputs, which hold the trained program and the samples."""

    model_file: str
    """The trained program, inside the outputs."""

    model_num_bytes: int
    """Size of the ONNX model, external data included."""

    settings: OrtValidation
    """The gate."""

    tolerance: str = TOLERANCE_RULE
    """The rule of ``settings.atol`` and ``settings.rtol``."""

    samples: SamplesUsed
    batch_sizes: tuple[int, ...]
    checks: tuple[Check, ...] = Field(min_length=1)
    parity: tuple[OutputParity, ...]
    quality: tuple[QualityFigure, ...]
    latency: tuple[Latency, ...]
    versions: dict[str, str]
    """Of torch, onnxruntime and numpy."""

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def verdict_sha256(self) -> str:
        """Digest of what was proven, without measured times and rounding errors (see ``ValidatedModel``)."""
        checks = [[check.name, check.expected, check.passed] for check in self.checks]
        fields = {"bundle_sha256", "model_file", "settings", "samples", "batch_sizes"}
        return digest_value({**self.model_dump(mode="json", include=fields), "checks": checks})

    def summary(self) -> ValidationSummary:
        """The verdict in short: the worst figure over providers, batch sizes and outputs."""
        agreements = [entry.agreement for entry in self.parity if entry.agreement is not None]
        latencies = [entry.onnxruntime_p50_ms for entry in self.latency if entry.batch_size == 1]
        metrics: dict[str, float] = {}
        for figure in self.quality:
            metrics[figure.metric] = min(figure.onnxruntime, metrics.get(figure.metric, figure.onnxruntime))
        return ValidationSummary(
            passed=self.passed,
            max_abs_error=max((entry.max_abs_error for entry in self.parity), default=0.0),
            max_rel_error=max((entry.max_rel_error for entry in self.parity), default=0.0),
            agreement=min(agreements, default=None),
            num_samples=self.samples.num_samples,
            latency_ms=max(latencies, default=None),
            metrics=metrics,
        )
