"""Prove that the ONNX model is the trained model: the same answers, over many samples, in every provider."""

import logging
import tempfile
from pathlib import Path

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.products import OnnxBundle, ValidatedModel
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.layout import MODEL_FILE, SAMPLES_FILE, SIGNATURE_FILE
from trainyard.tasks.models.program import TrainedProgram, load_program
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.bench import Bench
from trainyard.tasks.validation.gate import failure_message
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import Samples, random_samples, read_samples
from trainyard.tasks.validation.session import require_providers

log = logging.getLogger(__name__)


def validate_model(
    settings: OrtValidation, bundle: OnnxBundle, outputs: ArtifactRef, context: StageContext
) -> ValidatedModel:
    """Compare the ONNX model with the program that training saved, and store the report, whatever it says.

    Samples come from ``validation_samples.npz`` in the outputs: arrays named like the model's inputs, first
    axis the sample, and perhaps ``labels`` (integers [num_samples]). Without it they are seeded random
    inputs, and the report says so.

    Args:
        settings: The gate: providers, batch sizes, tolerances, least quality.
        bundle: The exported model.
        outputs: Tree: what the script wrote below ``outputs/``.
        context: Where the store is.

    Returns:
        The report and the verdict of a model that passed.

    Raises:
        ValidationFailedError: A check failed, or the samples do not fit the model. Names each failed check
            with its figures; the whole report is at ``report_uri``. A retry does not help.
        InvalidInputError: An execution provider is not available on this machine.
        ArtifactDamagedError: The bundle or the outputs are no longer whole.
    """
    require_providers(settings.providers)
    store = context.store
    with tempfile.TemporaryDirectory(prefix="trainyard-validate-") as scratch:
        report = _measure(settings, bundle, outputs, store, Path(scratch))
    stored = store.put_bytes(canonical_json(report.model_dump(mode="json")))
    if not report.passed:
        raise ValidationFailedError(failure_message(report, stored.uri), report_uri=stored.uri)
    log.info("All %d checks passed over %d samples", len(report.checks), report.samples.num_samples)
    return ValidatedModel(
        report=stored,
        bundle_sha256=bundle.bundle.sha256,
        verdict_sha256=report.verdict_sha256,
        summary=report.summary(),
    )


def default_batch_sizes(signature: ModelSignature) -> tuple[int, ...]:
    """1, the exported example's, and an odd one that is neither; for a fixed batch only that one."""
    example = signature.batch_size
    if not signature.batch_is_dynamic:
        return (example,)
    return (1, example, 5 if example == 7 else 7)


def _measure(
    settings: OrtValidation, bundle: OnnxBundle, outputs: ArtifactRef, store: ArtifactStore, scratch: Path
) -> ValidationReport:
    bundle_path = store.materialize(bundle.bundle, scratch / "bundle")
    program_path = store.materialize(store.find_entry(outputs, bundle.model_file), scratch / "program.pt2")
    signature = ModelSignature.model_validate_json((bundle_path / SIGNATURE_FILE).read_bytes())
    program = load_program(program_path, shown_as=bundle.model_file)
    bench = Bench(
        settings=settings,
        signature=signature,
        program=program,
        samples=_samples(settings, outputs, signature, program, store),
        batch_sizes=tuple(dict.fromkeys(settings.batch_sizes or default_batch_sizes(signature))),
    )
    for provider in settings.providers:
        bench.run_provider(bundle_path / MODEL_FILE, provider)
    num_bytes = sum(path.stat().st_size for path in bundle_path.glob(f"{MODEL_FILE}*"))
    return bench.report(bundle, outputs, num_bytes)


def _samples(
    settings: OrtValidation,
    outputs: ArtifactRef,
    signature: ModelSignature,
    program: TrainedProgram,
    store: ArtifactStore,
) -> Samples:
    try:
        data = store.read_entry(outputs, SAMPLES_FILE)
    except KeyError:
        log.warning("The run left no %s: comparing on random inputs", SAMPLES_FILE)
        return random_samples(program, settings.max_samples)
    return read_samples(data, signature, settings.max_samples)
