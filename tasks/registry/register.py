"""Register a validated model as the next version of its name; prove later that it is still there."""

import logging
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_chunks
from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, RegisteredModel, ValidatedModel
from trainyard.tasks.artifacts.references import ArtifactRef, TreeEntry
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, PipelineError, RegistrationError, StorageNotFoundError
from trainyard.tasks.models.layout import MANIFEST_FILE, REPORT_FILE
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.versions import (
    check_name,
    discard_version,
    read_manifest,
    reserve_version,
    version_location,
)

log = logging.getLogger(__name__)


def register_model(
    name: str, bundle: OnnxBundle, validated: ValidatedModel, lineage: Lineage, context: StageContext
) -> RegisteredModel:
    """Write ``models/<name>/<version>/``: the bundle's files, ``report.json`` and, last, ``manifest.json``.

    Two registrations at once get different versions. A reader never meets a partial one: a version exists
    when its manifest does. Where writing fails, what was written is removed.

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
    version = reserve_version(store, name, owner=lineage.pipeline_run)
    try:
        manifest = _write_version(store, name, version, bundle, validated, lineage)
    except BaseException:
        with suppress(PipelineError):  # the first error is the one to tell; a rest without manifest is no version
            discard_version(store, name, version)
        raise
    uri = version_location(store, name, version).url
    log.info("Registered %s version %d at %s", name, version, uri)
    return RegisteredModel(name=name, version=version, uri=uri, manifest=manifest)


def verify_registered(model: RegisteredModel, context: StageContext) -> None:
    """Prove that a registered version is whole by reading and hashing all of it.

    Raises:
        ArtifactDamagedError: A file is missing or differs; registering again makes a new version.
    """
    store = context.store
    location = version_location(store, model.name, model.version)
    try:
        _verify_file(location / MANIFEST_FILE, model.manifest.sha256)
        for entry in read_manifest(store, model.name, model.version).files:
            _verify_file(location / entry.path, entry.sha256)
    except StorageNotFoundError as error:
        raise ArtifactDamagedError(
            f"Registered model {model.name} version {model.version} at {location.url} is not whole: {error}"
        ) from error


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


def _write_version(
    store: ArtifactStore,
    name: str,
    version: int,
    bundle: OnnxBundle,
    validated: ValidatedModel,
    lineage: Lineage,
) -> ArtifactRef:
    """Write every file, then the manifest.

    Returns:
        The manifest in the store's objects.
    """
    location = version_location(store, name, version)
    report = validated.report
    files = (
        *store.list_tree(bundle.bundle).entries,
        TreeEntry(path=REPORT_FILE, sha256=report.sha256, num_bytes=report.num_bytes),
    )
    with tempfile.TemporaryDirectory(prefix="trainyard-register-") as scratch:
        folder = store.materialize(bundle.bundle, Path(scratch) / "version")
        store.materialize(report, folder / REPORT_FILE)
        for entry in files:
            (location / entry.path).upload(folder / entry.path)
    manifest = ModelManifest(
        name=name,
        version=version,
        registered=datetime.now(timezone.utc),
        bundle=bundle.bundle,
        files=files,
        validation=validated.summary,
        lineage=lineage,
    )
    data = manifest.model_dump_json(indent=1).encode()
    stored = store.put_bytes(data)
    (location / MANIFEST_FILE).write_bytes(data)
    return stored
