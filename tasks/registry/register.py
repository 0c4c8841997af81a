"""Register a validated model as the next version of its name; prove later that it is still there."""

import logging
import tempfile
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_chunks
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, RegisteredModel, ValidatedModel
from trainyard.tasks.artifacts.references import TreeEntry
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, PipelineError, RegistrationError, StorageNotFoundError
from trainyard.tasks.models.layout import MANIFEST_FILE, REPORT_FILE, REPORT_PAGE
from trainyard.tasks.registry.aliases import Decision, Move, list_moves, move_champion
from trainyard.tasks.registry.locking import claiming
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.versions import (
    check_name,
    list_versions,
    read_manifest,
    remove_others,
    version_location,
)
from trainyard.tasks.runtime.scratch import scratch_prefix

log = logging.getLogger(__name__)


def register_model(
    name: str, bundle: OnnxBundle, validated: ValidatedModel, lineage: Lineage, context: StageContext
) -> RegisteredModel:
    """Write ``models/<name>/<version>/``: the bundle's files, the report and, last, ``manifest.json``.

    Two registrations at once get different versions. A reader never meets a partial one: a version exists
    when its manifest does. Where writing fails, what was written is removed.

    The version becomes the champion if there is none, or if validation compared it with the present one.

    Args:
        name: Lower-case letters, digits, dots, dashes, underscores.
        bundle: The exported model.
        validated: The verdict on exactly this bundle.
        lineage: Where the model comes from.
        context: Where the store is.

    Raises:
        RegistrationError: The name is not allowed, or the verdict is negative or about another bundle.
        ArtifactDamagedError: The bundle or the report is no longer whole and must be made again.
        StorageUnavailableError: The store did not answer; retried.
    """
    check_name(name)
    _require_proof(bundle, validated)
    store = context.store
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("register")) as scratch:
        files, folder = _collect(store, bundle, validated, Path(scratch) / "version")
        manifest = _claim(store, name, bundle, validated, lineage, files, folder)
    location = version_location(store, name, manifest.version)
    _sweep(store, manifest)
    log.info("Registered %s version %d at %s", name, manifest.version, location.url)
    _crown(store, manifest, validated)
    stored = store.put_bytes(_bytes_of(manifest))
    return RegisteredModel(name=name, version=manifest.version, uri=location.url, manifest=stored)


def verify_registered(model: RegisteredModel, context: StageContext) -> None:
    """Prove that a registered version is whole by reading and hashing all of it.

    Raises:
        ArtifactDamagedError: A file is missing or differs; registering again makes a new version.
    """
    store = context.store
    location = version_location(store, model.name, model.version)
    try:
        _verify_file(location / MANIFEST_FILE, model.manifest.sha256)
        verify_files(location, read_manifest(store, model.name, model.version))
    except StorageNotFoundError as error:
        raise ArtifactDamagedError(
            f"Registered model {model.name} version {model.version} at {location.url} is not whole: {error}"
        ) from error


def verify_files(location: Location, manifest: ModelManifest) -> None:
    """Hash every file of a version.

    Raises:
        ArtifactDamagedError: A file differs.
        StorageNotFoundError: A file is missing.
    """
    for entry in manifest.files:
        _verify_file(location / manifest.folder / entry.path, entry.sha256)


def _verify_file(location: Location, sha256: str) -> None:
    found, _ = digest_chunks(location.read_chunks())
    if found != sha256:
        raise ArtifactDamagedError(
            f"Registered file {location.url} is damaged: expected bytes of {sha256[:12]}, found {found[:12]}."
        )


def _require_proof(bundle: OnnxBundle, validated: ValidatedModel) -> None:
    if not validated.summary.passed:
        raise RegistrationError(
            f"The model did not pass validation, so it is not registered; see {validated.report.uri}."
        )
    if validated.bundle_sha256 != bundle.bundle.sha256:
        raise RegistrationError(
            f"The verdict is about the bundle {validated.bundle_sha256[:12]}, this is "
            f"{bundle.bundle.sha256[:12]}: validate this bundle, then register it."
        )


def _collect(
    store: ArtifactStore, bundle: OnnxBundle, validated: ValidatedModel, folder: Path
) -> tuple[tuple[TreeEntry, ...], Path]:
    """Every file of the version, verified, in a local folder."""
    store.materialize(bundle.bundle, folder)
    proofs = {REPORT_FILE: validated.report, **({REPORT_PAGE: validated.page} if validated.page else {})}
    for name, reference in proofs.items():
        store.materialize(reference, folder / name)
    entries = [TreeEntry(path=name, sha256=ref.sha256, num_bytes=ref.num_bytes) for name, ref in proofs.items()]
    return (*store.list_tree(bundle.bundle).entries, *entries), folder


def _claim(
    store: ArtifactStore,
    name: str,
    bundle: OnnxBundle,
    validated: ValidatedModel,
    lineage: Lineage,
    files: tuple[TreeEntry, ...],
    folder: Path,
) -> ModelManifest:
    """Write the files below the next number and create its manifest; where somebody was faster, below the one after."""
    while True:
        version = _next_version(store, name)
        manifest = ModelManifest(
            name=name,
            version=version,
            registered=datetime.now(timezone.utc),
            folder=uuid.uuid4().hex[:16],
            bundle=bundle.bundle,
            files=files,
            validation=validated.summary,
            lineage=lineage,
        )
        if _create(store, manifest, folder):
            return manifest
        log.info("Version %d of %s was registered by somebody else at the same moment.", version, name)


def _create(store: ArtifactStore, manifest: ModelManifest, folder: Path) -> bool:
    """Make the version, or leave nothing of it; False where somebody else has its number.

    An answer may be lost after the store has written the manifest, so whoever has the number is read from it.
    """
    try:
        created = _write(version_location(store, manifest.name, manifest.version), manifest, folder)
    except BaseException as error:
        try:
            holder = _holder(store, manifest)
        except PipelineError as unknown:  # the files stay, as the manifest may be there; if not, the next writer sweeps
            raise error from unknown
        if holder != manifest.folder:
            _withdraw(store, manifest)
        if holder is None or not isinstance(error, PipelineError):
            raise
        created = holder == manifest.folder  # else the one that was faster has removed our files
        log.info("Writing the manifest of %s version %d: %s", manifest.name, manifest.version, error)
        return created
    if not created and _holder(store, manifest) == manifest.folder:  # a lost answer, and a second request in its place
        return True
    if not created:
        _withdraw(store, manifest)
    return created


def _holder(store: ArtifactStore, manifest: ModelManifest) -> str | None:
    """The folder of the writer that has the version's number; None while nobody has.

    Raises:
        PipelineError: The store does not say.
    """
    try:
        return read_manifest(store, manifest.name, manifest.version).folder
    except StorageNotFoundError:
        return None


def _next_version(store: ArtifactStore, name: str) -> int:
    """One more than every version that there is, or that was champion: moves must never point at another model.

    A number without a manifest that was never champion is free.
    """
    moved = (move.version for move in list_moves(store, name))
    return max([*list_versions(store, name), *moved], default=0) + 1


def _write(location: Location, manifest: ModelManifest, folder: Path) -> bool:
    """Write the files, then create the manifest; False where there is one."""
    for entry in manifest.files:
        (location / manifest.folder / entry.path).upload(folder / entry.path)
    with claiming(location.url):
        return (location / MANIFEST_FILE).create_bytes(_bytes_of(manifest))


def _withdraw(store: ArtifactStore, manifest: ModelManifest) -> None:
    """Remove what was written for a number that somebody else has, or that nobody will have."""
    folder = version_location(store, manifest.name, manifest.version) / manifest.folder
    with suppress(PipelineError):  # best effort: without a manifest it is no version, and the next writer removes it
        for info in list(folder.list_objects()):
            (folder / info.key).delete()


def _sweep(store: ArtifactStore, manifest: ModelManifest) -> None:
    """Remove what writers that were killed left for this number, and for the one before."""
    remove_others(version_location(store, manifest.name, manifest.version), manifest.folder)
    before = manifest.version - 1
    with suppress(StorageNotFoundError, ArtifactDamagedError):
        kept = read_manifest(store, manifest.name, before).folder
        remove_others(version_location(store, manifest.name, before), kept)


def _crown(store: ArtifactStore, manifest: ModelManifest, validated: ValidatedModel) -> None:
    """Make the new version the champion where its validation allows that."""

    def decide(moves: list[Move]) -> Decision:
        if not moves:
            return Decision(manifest.version, "the first version that passed validation")
        present = moves[-1].version
        if present != validated.champion_version:
            raise RegistrationError(f"validation did not compare it with version {present}")
        return Decision(manifest.version, f"validation compared it with version {present} on the same samples")

    try:
        move_champion(store, manifest.name, decide)
    except RegistrationError as error:
        log.info("The champion of %s stays: %s. To change it: trainyard models promote.", manifest.name, error)


def _bytes_of(manifest: ModelManifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode()
