"""Where versions lie, and how a new one gets its number.

::

    models/<name>/<version>/.reserved        created first, atomically: whoever creates it has the number
    models/<name>/<version>/model.onnx …     the bundle's files, and report.json
    models/<name>/<version>/manifest.json    written last: now the version exists

A number whose writer died stays unused; its directory has no manifest, so nobody reads it.
"""

import re

from pydantic import ValidationError

from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, RegistrationError
from trainyard.tasks.models.layout import MANIFEST_FILE
from trainyard.tasks.registry.manifest import ModelManifest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_RESERVATION = ".reserved"


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


def version_location(store: ArtifactStore, name: str, version: int) -> Location:
    """The directory of a version."""
    return _model(store, name) / str(version)


def list_versions(store: ArtifactStore, name: str) -> list[int]:
    """The versions of a model, ascending; those being written are not among them."""
    check_name(name)
    model = _model(store, name)
    return [version for version in _numbers(model) if (model / str(version) / MANIFEST_FILE).exists()]


def read_manifest(store: ArtifactStore, name: str, version: int) -> ModelManifest:
    """The manifest of a version.

    Raises:
        StorageNotFoundError: There is no such version.
        ArtifactDamagedError: It cannot be read.
    """
    check_name(name)
    location = version_location(store, name, version) / MANIFEST_FILE
    try:
        return ModelManifest.model_validate_json(location.read_bytes())
    except ValidationError as error:
        raise ArtifactDamagedError(
            f"{location.url} is not a manifest: the version is damaged; register the model again."
        ) from error


def reserve_version(store: ArtifactStore, name: str, owner: str) -> int:
    """Take the next free number; of several writers at once each gets another one.

    Args:
        store: The store.
        name: The model's name.
        owner: Says in the reservation who took it.
    """
    model = _model(store, name)
    version = max(_numbers(model), default=0) + 1
    while not (model / str(version) / _RESERVATION).create_bytes(owner.encode()):
        version += 1
    return version


def discard_version(store: ArtifactStore, name: str, version: int) -> None:
    """Remove what was written of a version that did not come to be; the reservation last."""
    location = version_location(store, name, version)
    keys = [info.key for info in location.list_objects()]
    for key in sorted(keys, key=lambda key: key == _RESERVATION):
        (location / key).delete()


def _model(store: ArtifactStore, name: str) -> Location:
    return store.root / f"models/{name}"


def _numbers(model: Location) -> list[int]:
    return sorted(int(name) for name in model.list_names() if name.isascii() and name.isdigit())
