"""What is wrong with a registered version, as far as a listing tells; ``load_model`` looks at every byte."""

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, StorageNotFoundError
from trainyard.tasks.models.layout import MANIFEST_FILE
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.versions import read_manifest, version_location


def find_damage(store: ArtifactStore, name: str, version: int) -> str | None:
    """The files of a version that are missing or have another size, or None; nothing of them is read.

    Raises:
        StorageNotFoundError: There is no such version.
    """
    try:
        manifest = read_manifest(store, name, version)
    except ArtifactDamagedError:
        return f"{MANIFEST_FILE} cannot be read"
    sizes = _sizes(store, manifest)
    wrong = [
        f"{entry.path} is missing" if entry.path not in sizes else f"{entry.path} has another size"
        for entry in manifest.files
        if sizes.get(entry.path) != entry.num_bytes
    ]
    return ", ".join(wrong) or None


def _sizes(store: ArtifactStore, manifest: ModelManifest) -> dict[str, int]:
    folder = version_location(store, manifest.name, manifest.version) / manifest.folder
    try:
        return {info.key: info.num_bytes for info in folder.list_objects()}
    except StorageNotFoundError:
        return {}
