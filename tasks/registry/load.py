"""Load a registered model: a local copy whose every byte was checked."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from trainyard.tasks.artifacts.digests import canonical_json, digest_bytes, digest_chunks, digest_file
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.products import Champion
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.artifacts.references import TreeEntry, TreeListing
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, StorageNotFoundError
from trainyard.tasks.models.bundle import verify_bundle
from trainyard.tasks.models.layout import REPORT_FILE, REPORT_PAGE
from trainyard.tasks.registry.aliases import CHAMPION, list_moves, reigns, resolve
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.versions import check_name, read_manifest, version_location

_PROOFS = (REPORT_FILE, REPORT_PAGE)


def load_model(name: str, version: str | int = CHAMPION, context: StageContext | None = None) -> Path:
    """A local, verified copy of a registered model.

    Args:
        name: The model.
        version: A number, ``champion`` or ``latest``.
        context: Where the registry is and where copies are kept; by default as the settings say.

    Returns:
        A directory with ``model.onnx``, its external data if any, ``signature.json``, ``bundle.json``, and labels and
        preprocessing notes where there are any.

    Raises:
        StorageNotFoundError: There is no such model or version; says what there is.
        ArtifactDamagedError: A file is missing, was swapped or damaged.
    """
    context = context or StageContext.from_settings()
    check_name(name)
    store = context.store
    manifest = read_manifest(store, name, resolve(store, name, version))
    _require_one_unit(manifest)
    target = context.home / "registered" / manifest.bundle.sha256[:32]
    if not _is_whole(target, manifest):
        _download(store, manifest, target)
    return target


def find_champion(name: str, store: ArtifactStore, bundle_sha256: str) -> Champion | None:
    """The champion that a bundle must be compared with, or None while there is none.

    Where the bundle is the champion's own, that is the champion before it: so a pipeline that runs again asks the same
    question again, and finds its answer in the cache.

    Raises:
        ArtifactDamagedError: The manifest of a champion is gone or damaged; says what to do.
    """
    for version in reversed(reigns(list_moves(store, name))):
        manifest = _read_champion(store, name, version)
        if manifest.bundle.sha256 != bundle_sha256:
            folder = f"models/{name}/{version}/{manifest.folder}"
            return Champion(version=version, bundle=manifest.bundle, folder=folder, files=bundle_files(manifest))
    return None


def _read_champion(store: ArtifactStore, name: str, version: int) -> ModelManifest:
    try:
        return read_manifest(store, name, version)
    except (StorageNotFoundError, ArtifactDamagedError) as error:
        raise ArtifactDamagedError(
            f"Version {version} of {name} is or was its champion, and cannot be compared with: {error} Give the "
            f"champion back to the version before it: trainyard models rollback {name} --reason 'version {version} is "
            "damaged'."
        ) from error


def bundle_files(manifest: ModelManifest) -> tuple[TreeEntry, ...]:
    """The files of a version that are the model's, without the proofs."""
    return tuple(entry for entry in manifest.files if entry.path not in _PROOFS)


def _require_one_unit(manifest: ModelManifest) -> None:
    """The files are those of the bundle that was validated: its digest covers all of theirs."""
    listing = TreeListing(entries=bundle_files(manifest))
    found = digest_bytes(canonical_json(listing.model_dump(mode="json")))
    if found != manifest.bundle.sha256:
        raise ArtifactDamagedError(
            f"The manifest of {manifest.name} version {manifest.version} lists files of the bundle {found[:12]}; "
            f"expected those of {manifest.bundle.sha256[:12]}, which was validated. Register the model again."
        )


def _is_whole(folder: Path, manifest: ModelManifest) -> bool:
    """Whether a local copy is exactly the registered files; else it is removed.

    What the copy says of itself proves nothing: whoever changes a file can change its description.
    """
    if not folder.is_dir():
        return False
    expected = {entry.path: entry.sha256 for entry in bundle_files(manifest)}
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    if paths.keys() == expected.keys() and all(digest_file(path)[0] == expected[key] for key, path in paths.items()):
        return True
    shutil.rmtree(folder)
    return False


def _download(store: ArtifactStore, manifest: ModelManifest, target: Path) -> None:
    """The folder appears whole or not at all."""
    location = version_location(store, manifest.name, manifest.version) / manifest.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        whole = scratch / "bundle"
        for entry in bundle_files(manifest):
            _fetch(location / entry.path, entry, whole / entry.path)
        verify_bundle(whole)
        try:
            os.replace(whole, target)
        except OSError:
            if not _is_whole(target, manifest):  # else somebody else was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copied(chunks: Iterable[Block], out: BinaryIO) -> Iterator[Block]:
    for chunk in chunks:
        out.write(chunk)
        yield chunk


def _fetch(location: Location, entry: TreeEntry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as out:
            sha256, _ = digest_chunks(_copied(location.read_chunks(), out))
    except StorageNotFoundError as error:
        raise ArtifactDamagedError(f"{location.url} is missing: the registered version is not whole.") from error
    if sha256 != entry.sha256:
        raise ArtifactDamagedError(
            f"{location.url} was swapped or damaged: expected bytes of {entry.sha256[:12]}, found {sha256[:12]}."
        )
