"""Where versions lie, and how a new one gets its number.

::

    models/<name>/<version>/<writer>/model.onnx …    the bundle's files, report.json and report.html
    models/<name>/<version>/manifest.json            written last, and only if there is none: now the version exists

Nothing is reserved: writers of the same number write into folders of their own, and the one that creates the manifest
has the number. The others take the next. What a killed writer leaves has no manifest, so nobody reads it, and whoever
takes its number removes it.
"""

import re
from contextlib import suppress

from pydantic import ValidationError

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError, StorageNotFoundError
from trainyard.tasks.models.layout import MANIFEST_FILE
from trainyard.tasks.registry.manifest import ModelManifest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_name(name: str) -> None:
    """Refuse a name that could not be a folder of its own everywhere.

    Raises:
        RegistrationError: It is not lower-case letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot be a model's name: expected lower-case letters, digits, '.', '_' and '-', "
            "a letter or digit first, for example 'digits-cnn'."
        )


def model_location(store: ArtifactStore, name: str) -> Location:
    """The directory of a model, with all its versions."""
    return store.root / f"models/{name}"


def version_location(store: ArtifactStore, name: str, version: int) -> Location:
    """The directory of a version."""
    return model_location(store, name) / str(version)


def list_models(store: ArtifactStore) -> list[str]:
    """Names of the models that have a version, sorted."""
    names = (store.root / "models").list_names()
    return [name for name in names if _NAME.fullmatch(name) and list_versions(store, name)]


def list_versions(store: ArtifactStore, name: str) -> list[int]:
    """The versions of a model, ascending; those being written are not among them."""
    check_name(name)
    model = model_location(store, name)
    return [version for version in numbers(model) if (model / str(version) / MANIFEST_FILE).exists()]


def read_manifest(store: ArtifactStore, name: str, version: int) -> ModelManifest:
    """The manifest of a version.

    Raises:
        StorageNotFoundError: There is no such version; names those that there are.
        ArtifactDamagedError: It cannot be read.
    """
    check_name(name)
    location = version_location(store, name, version) / MANIFEST_FILE
    try:
        return ModelManifest.model_validate_json(location.read_bytes())
    except StorageNotFoundError as error:
        versions = ", ".join(map(str, list_versions(store, name))) or "none"
        raise StorageNotFoundError(
            f"There is no version {version} of the model {name!r} in {store.url}; versions: {versions}."
        ) from error
    except ValidationError as error:
        raise ArtifactDamagedError(
            f"{location.url} is not a manifest: the version is damaged; register the model again."
        ) from error


def remove_others(location: Location, folder: str | None) -> None:
    """Remove what other writers left in a version's directory; they cannot get its number any more.

    Args:
        location: The version's directory.
        folder: The one to keep.
    """
    with suppress(StorageNotFoundError):  # somebody else removes them at the same moment
        for info in list(location.list_objects()):
            if info.key != MANIFEST_FILE and info.key.split("/", 1)[0] != folder:
                (location / info.key).delete()


def numbers(location: Location) -> list[int]:
    """The numbers among the names directly below a location, ascending."""
    names = (name.removesuffix(".json") for name in location.list_names())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())
