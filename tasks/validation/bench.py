"""Both models and the samples on one bench: run every provider at every batch size, and keep the figures."""

import logging
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from trainyard.tasks.artifacts.products import OnnxBundle
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.program import TrainedProgram
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.gate import accuracy, did_not_run, parity_checks, quality_checks, ran
from trainyard.tasks.validation.latency import measure_latency
from trainyard.tasks.validation.parity import compare
from trainyard.tasks.validation.report import Check, Latency, OutputParity, QualityFigure, ValidationReport
from trainyard.tasks.validation.samples import Samples
from trainyard.tasks.validation.session import OrtModel, open_model

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Collects checks and figures. What cannot run is a failed check, so that one report shows everything."""

    settings: OrtValidation
    signature: ModelSignature
    program: TrainedProgram
    samples: Samples
    batch_sizes: tuple[int, ...]
    checks: list[Check] = field(default_factory=list)
    parity: list[OutputParity] = field(default_factory=list)
    quality: list[QualityFigure] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)

    def run_provider(self, model_path: Path, provider: str) -> None:
        """Load the model in a provider, compare at every batch size, and time it."""
        try:
            model = open_model(model_path, provider, spinning=False)
        except ValidationFailedError as error:
            self.checks.append(did_not_run(provider, error))
            return
        for batch_size in self.batch_sizes:
            self._compare(model, batch_size)
        self._time(model_path, provider)

    def report(self, bundle: OnnxBundle, outputs: ArtifactRef, model_num_bytes: int) -> ValidationReport:
        """Everything that was found."""
        return ValidationReport(
            bundle_sha256=bundle.bundle.sha256,
            outputs_sha256=outputs.sha256,
            model_file=bundle.model_file,
            model_num_bytes=model_num_bytes,
            settings=self.settings,
            samples=self.samples.used,
            batch_sizes=self.batch_sizes,
            checks=(*self.checks, *quality_checks(self.quality, self.settings)),
            parity=tuple(self.parity),
            quality=tuple(self.quality),
            latency=tuple(self.latency),
            versions={name: version(name) for name in ("torch", "onnxruntime", "numpy")},
        )

    def _compare(self, model: OrtModel, batch_size: int) -> None:
        where = f"{model.provider}, batch {batch_size}"
        try:
            comparison = compare(self.program, model, self.signature, self.samples, batch_size, self.settings)
        except ValidationFailedError as error:
            self.checks.append(did_not_run(where, error))
            return
        self.checks.append(ran(where))
        self.parity += comparison.outputs
        for parity in comparison.outputs:
            self.checks += parity_checks(parity, self.settings)
        if self.samples.labels is not None and batch_size == max(self.batch_sizes):
            figure = accuracy(comparison, self.samples.labels, model.provider)
            self.quality += [figure] if figure else []

    def _time(self, model_path: Path, provider: str) -> None:
        """At a batch of one, or at the only batch the model takes; not where it does not run."""
        batch_size = 1 if self.signature.batch_is_dynamic else self.signature.batch_size
        try:
            model = open_model(model_path, provider)
            self.latency.append(measure_latency(self.program, model, self.samples, batch_size))
        except ValidationFailedError as error:
            log.warning("Latency in %s was not measured: %s", provider, error)
