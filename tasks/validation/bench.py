"""Both models and the samples on one bench: run every provider at every batch size, and keep the figures."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from trainyard.tasks.artifacts.products import Champion, OnnxBundle
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.classification import classify
from trainyard.tasks.validation.figures import (
    ChampionFigure,
    Check,
    Classification,
    Footprint,
    Latency,
    OutputParity,
    QualityFigure,
    Regression,
)
from trainyard.tasks.validation.footprint import measure_footprint
from trainyard.tasks.validation.gate import (
    champion_checks,
    did_not_run,
    parity_checks,
    provider_check,
    provider_unproven,
    quality_checks,
    ran,
)
from trainyard.tasks.validation.independence import independence_check
from trainyard.tasks.validation.latency import latency_batch_sizes, measure_latency
from trainyard.tasks.validation.parity import Comparison, compare
from trainyard.tasks.validation.quality import Goal, quality_figures
from trainyard.tasks.validation.reference import Reference
from trainyard.tasks.validation.regression import residuals
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import Samples
from trainyard.tasks.validation.session import OrtModel, open_model
from trainyard.tasks.validation.tolerance import tolerance_for

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Collects checks and figures. What cannot run is a failed check, so that one report shows everything."""

    settings: OrtValidation
    signature: ModelSignature
    reference: Reference
    samples: Samples
    goal: Goal
    batch_sizes: tuple[int, ...]
    scratch: Path
    checks: list[Check] = field(default_factory=list)
    parity: list[OutputParity] = field(default_factory=list)
    quality: list[QualityFigure] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    footprint: list[Footprint] = field(default_factory=list)
    champion: list[ChampionFigure] = field(default_factory=list)
    champion_note: str = ""
    classification: Classification | None = None
    regression: Regression | None = None

    def run_provider(self, model_path: Path, provider: str) -> None:
        """Load the model in a provider, compare at every batch size, and time it."""
        try:
            model = open_model(model_path, provider, spinning=False)
        except ValidationFailedError as error:
            self.checks.append(did_not_run(provider, error))
            return
        for batch_size in self.batch_sizes:
            self._compare(model, batch_size)
        for axis, size in other_sizes(self.signature, self.samples).items():
            self._compare(model, max(self.batch_sizes), {axis: size})
        self._measure_footprint(model_path, provider)
        for batch_size in latency_batch_sizes(self.signature, self.batch_sizes):
            self._time(model_path, provider, batch_size)

    def check_independence(self) -> None:
        """See that the trained model's answers do not depend on who else is in the batch."""
        if self.settings.batch_dependent:
            return
        batch_size = max(self.batch_sizes)
        check = independence_check(self.reference, self.signature, self.samples, batch_size, self.settings)
        self.checks += [check] if check else []

    def report(
        self,
        bundle: OnnxBundle,
        outputs: ArtifactRef,
        model_num_bytes: int,
        champion: Champion | None,
        labels: tuple[str, ...],
    ) -> ValidationReport:
        """Everything that was found."""
        dtypes = dict.fromkeys(tensor.dtype for tensor in self.signature.outputs)
        return ValidationReport(
            bundle_sha256=bundle.bundle.sha256,
            outputs_sha256=outputs.sha256,
            model_file=bundle.model_file,
            model_num_bytes=model_num_bytes,
            attempts=bundle.attempts,
            settings=self.settings,
            tolerances=tuple(tolerance_for(dtype, self.settings) for dtype in dtypes),
            samples=self.samples.used,
            batch_sizes=self.batch_sizes,
            checks=(
                *self.checks,
                *quality_checks(self.quality, self.settings, self.goal.note),
                *champion_checks(self.champion, champion, self.settings, self.goal, self.champion_note),
            ),
            parity=tuple(self.parity),
            quality=tuple(self.quality),
            latency=tuple(self.latency),
            footprint=tuple(self.footprint),
            problem=self.goal.problem,
            quality_note=self.goal.note,
            classification=self.classification,
            regression=self.regression,
            champion=tuple(self.champion),
            labels=labels,
            versions={name: version(name) for name in ("torch", "onnxruntime", "numpy")},
        )

    def _compare(self, model: OrtModel, batch_size: int, sizes: Mapping[str, int] | None = None) -> None:
        where = f"{model.provider}, batch {batch_size}" + "".join(f", {axis} {n}" for axis, n in (sizes or {}).items())
        judged = batch_size == max(self.batch_sizes) and not sizes
        try:
            comparison = compare(
                self.reference,
                model,
                self.signature,
                self.samples,
                batch_size,
                self.settings,
                self.goal,
                sizes,
                keeps_answers=judged,
            )
        except ValidationFailedError as error:
            self.checks.append(did_not_run(where, error))
            return
        self.checks.append(ran(where))
        self.parity += comparison.outputs
        for parity, tensor in zip(comparison.outputs, self.signature.outputs, strict=True):
            self.checks += parity_checks(parity, tolerance_for(tensor.dtype, self.settings), self.settings)
        self._judge(comparison, model.provider)

    def _judge(self, comparison: Comparison, provider: str) -> None:
        """Quality, where an output answers the labels of the samples."""
        if comparison.answers is None or self.samples.labels is None:
            return
        labels = self.samples.labels[comparison.positions]
        figures = quality_figures(self.goal, labels, comparison.answers, provider)
        if not figures:
            return
        self.quality += figures
        if self.goal.problem == "regression":
            self.regression = residuals(labels, comparison.answers[1])
        else:
            self.classification = classify(labels, comparison.answers[1])

    def _measure_footprint(self, model_path: Path, provider: str) -> None:
        batch_size = max(self.batch_sizes)
        try:
            footprint = measure_footprint(model_path, provider, self.samples.batch(batch_size), self.scratch)
        except ValidationFailedError as error:
            self.checks.append(provider_unproven(provider, error, self.settings))
            return
        self.footprint.append(footprint)
        self.checks.append(provider_check(footprint, self.settings))

    def _time(self, model_path: Path, provider: str, batch_size: int) -> None:
        try:
            model = open_model(model_path, provider)
            self.latency.append(measure_latency(self.reference, model, self.samples, batch_size))
        except ValidationFailedError as error:
            log.warning("Latency in %s was not measured: %s", provider, error)


def other_sizes(signature: ModelSignature, samples: Samples) -> dict[str, int]:
    """For each named axis beside the batch, a shorter size than the samples': half, but an odd one."""
    sizes: dict[str, int] = {}
    for tensor in signature.inputs:
        for axis, name in enumerate(tensor.shape):
            length = samples.inputs[tensor.name].shape[axis]
            if axis and isinstance(name, str) and name.isidentifier() and length > 2:
                sizes.setdefault(name, (length // 2) | 1)
    return sizes
