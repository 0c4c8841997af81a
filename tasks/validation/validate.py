"""Prove that the ONNX model is the trained model: the same answers, over many samples, in every provider."""

import json
import logging
import tempfile
from pathlib import Path

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.products import Champion, OnnxBundle, ValidatedModel
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, ValidationFailedError
from trainyard.tasks.models.bundle import verify_bundle
from trainyard.tasks.models.layout import LABELS_FILE, MODEL_FILE, SAMPLES_FILE, SIGNATURE_FILE
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.runtime.scratch import scratch_prefix
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.bench import Bench
from trainyard.tasks.validation.champion import compare_with_champion
from trainyard.tasks.validation.curves import read_curves
from trainyard.tasks.validation.gate import bundle_check, failure_message
from trainyard.tasks.validation.page import render_page
from trainyard.tasks.validation.pictures import pictures_of
from trainyard.tasks.validation.quality import goal_of
from trainyard.tasks.validation.reference import Reference, open_reference
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import Samples, random_samples, read_samples
from trainyard.tasks.validation.session import require_providers

log = logging.getLogger(__name__)


def validate_model(
    settings: OrtValidation,
    bundle: OnnxBundle,
    outputs: ArtifactRef,
    context: StageContext,
    *,
    source: ArtifactRef | None = None,
    champion: Champion | None = None,
    records: ArtifactRef | None = None,
) -> ValidatedModel:
    """Compare the ONNX model with the model that training saved, and store the report, whatever it says.

    Samples come from ``validation_samples.npz`` in the outputs: arrays named like the model's inputs, first
    axis the sample, and perhaps ``labels`` (classes as integers [num_samples], or floats shaped like an output).
    Without it they are seeded random inputs, and the report says so.

    Args:
        settings: The gate: providers, batch sizes, tolerances, least quality.
        bundle: The exported model.
        outputs: Tree: what the script wrote below ``outputs/``.
        context: Where the store is.
        source: Tree: the source snapshot, for models that need its classes.
        champion: The registered version that this one must not be worse than.
        records: Tree: the run's metric records, for the curves of the page.

    Returns:
        The report and the verdict of a model that passed.

    Raises:
        ValidationFailedError: A check failed, or the samples do not fit the model. Names each failed check
            with its figures; the whole report is at ``report_uri``, a page for people at ``page_path``. A retry
            does not help.
        InvalidInputError: An execution provider is not available on this machine.
        ArtifactDamagedError: The outputs are no longer whole.
    """
    require_providers(settings.providers)
    store = context.store
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("validate")) as scratch:
        report, pictures = _measure(settings, bundle, outputs, source, champion, store, Path(scratch))
    stored = store.put_bytes(canonical_json(report.model_dump(mode="json")))
    page = store.put_bytes(render_page(report, read_curves(records, store), pictures).encode())
    if not report.passed:
        path = store.materialize_once(page, context.home / "reports" / f"validation-{page.sha256[:16]}.html")
        message = f"{failure_message(report, stored.uri)}\nFor people: {path}"
        raise ValidationFailedError(message, report_uri=stored.uri, page_path=str(path))
    log.info("All %d checks passed over %d samples", len(report.checks), report.samples.num_samples)
    return ValidatedModel(
        report=stored,
        bundle_sha256=bundle.bundle.sha256,
        verdict_sha256=report.verdict_sha256,
        summary=report.summary(),
        page=page,
        champion_version=champion.version if champion else None,
    )


def default_batch_sizes(signature: ModelSignature) -> tuple[int, ...]:
    """1, the exported example's, and an odd one that is neither; for a fixed batch only that one."""
    example = signature.batch_size
    if not signature.batch_is_dynamic:
        return (example,)
    return (1, example, 5 if example == 7 else 7)


def _measure(
    settings: OrtValidation,
    bundle: OnnxBundle,
    outputs: ArtifactRef,
    source: ArtifactRef | None,
    champion: Champion | None,
    store: ArtifactStore,
    scratch: Path,
) -> tuple[ValidationReport, dict[int, str]]:
    """The report, and pictures of the worst samples."""
    folder = store.materialize(bundle.bundle, scratch / "bundle")
    signature = ModelSignature.model_validate_json((folder / SIGNATURE_FILE).read_bytes())
    with open_reference(bundle, outputs, source, store, scratch) as reference:
        samples = _samples(settings, outputs, signature, bundle, reference, store)
        goal = goal_of(signature, samples.labels, settings.told_problem)
        if samples.labels is not None and goal.output is None:
            log.warning("Quality is not measured: %s", goal.note)
        bench = Bench(
            settings=settings,
            signature=signature,
            reference=reference,
            samples=samples,
            goal=goal,
            batch_sizes=tuple(dict.fromkeys(settings.batch_sizes or default_batch_sizes(signature))),
            scratch=scratch,
        )
        damage = _damage(folder)
        bench.checks.append(bundle_check(damage))
        bench.check_independence()
        if damage is None:
            for provider in settings.providers:
                bench.run_provider(folder / MODEL_FILE, provider)
    if champion is not None:
        try:
            bench.champion = compare_with_champion(champion, bench.quality, samples, settings, store, scratch)
        except ArtifactDamagedError as error:
            bench.champion_note = str(error)
    num_bytes = sum(path.stat().st_size for path in folder.glob(f"{MODEL_FILE}*"))
    report = bench.report(bundle, outputs, num_bytes, champion, _labels(folder))
    return report, pictures_of(samples, report)


def _damage(folder: Path) -> ArtifactDamagedError | None:
    try:
        verify_bundle(folder)
    except ArtifactDamagedError as error:
        return error
    return None


def _labels(folder: Path) -> tuple[str, ...]:
    path = folder / LABELS_FILE
    return tuple(json.loads(path.read_bytes())) if path.exists() else ()


def _samples(
    settings: OrtValidation,
    outputs: ArtifactRef,
    signature: ModelSignature,
    bundle: OnnxBundle,
    reference: Reference,
    store: ArtifactStore,
) -> Samples:
    try:
        data = store.read_entry(outputs, SAMPLES_FILE)
    except KeyError:
        log.warning("The run left no %s: comparing on random inputs", SAMPLES_FILE)
        return random_samples(reference.example_inputs, bundle.settings.inputs, settings.max_samples)
    return read_samples(data, signature, settings.max_samples)
