"""The validation report: every check with its bound and what was found, and the figures behind it."""

from pydantic import Field

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.specs.quality import Problem, worst
from trainyard.tasks.specs.results import ExportAttempt, ValidationSummary
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import (
    TOLERANCE_RULE,
    ChampionFigure,
    Check,
    Classification,
    Footprint,
    Latency,
    OutputParity,
    QualityFigure,
    Regression,
    SamplesUsed,
    Tolerance,
)


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

    attempts: tuple[ExportAttempt, ...] = ()
    """Every way of exporting that was tried; the last one gave this model."""

    settings: OrtValidation
    """The gate."""

    tolerance: str = TOLERANCE_RULE
    """The rule of the tolerances."""

    tolerances: tuple[Tolerance, ...] = ()
    """The numbers, for each element type of the outputs."""

    samples: SamplesUsed
    batch_sizes: tuple[int, ...]
    checks: tuple[Check, ...] = Field(min_length=1)
    parity: tuple[OutputParity, ...]
    quality: tuple[QualityFigure, ...]
    latency: tuple[Latency, ...]
    footprint: tuple[Footprint, ...] = ()
    problem: Problem | None = None
    """The kind of model, as told by the settings or by the labels."""

    quality_note: str = ""
    """Why no quality was measured."""

    classification: Classification | None = None
    regression: Regression | None = None
    champion: tuple[ChampionFigure, ...] = ()
    labels: tuple[str, ...] = ()
    """Names of the classes, where the bundle has them."""

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
        if self.champion:
            checks.append(["champion", str(self.champion[0].version), True])
        fields = {"bundle_sha256", "model_file", "settings", "samples", "batch_sizes"}
        return digest_value({**self.model_dump(mode="json", include=fields), "checks": checks})

    def summary(self) -> ValidationSummary:
        """The verdict in short: the worst figure over providers, batch sizes and outputs."""
        agreements = [entry.agreement for entry in self.parity if entry.agreement is not None]
        latencies = [entry.onnxruntime_p50_ms for entry in self.latency if entry.batch_size == 1]
        metrics: dict[str, float] = {}
        for figure in self.quality:
            others = [metrics[figure.metric]] if figure.metric in metrics else []
            metrics[figure.metric] = worst(figure.metric, [figure.onnxruntime, *others])
        return ValidationSummary(
            passed=self.passed,
            max_abs_error=max((entry.max_abs_error for entry in self.parity), default=0.0),
            max_rel_error=max((entry.max_rel_error for entry in self.parity), default=0.0),
            agreement=min(agreements, default=None),
            num_samples=self.samples.num_samples,
            latency_ms=max(latencies, default=None),
            metrics=metrics,
            compared_by=self.settings.compared_metrics(self.problem) if metrics and self.problem else (),
            samples_sha256=self.samples.sha256,
        )
