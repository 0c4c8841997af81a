"""Stage records: what a stage made under which key, kept in the store beside the artifacts.

A record proves itself: it holds a digest of its own content, and the stage and components that it was written for. That
is for damage (a flipped bit, a file copied over another, a hand that edits); who can write to the store can write the
digest, too.
"""

import json
import logging
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.errors import StorageNotFoundError
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

Product = TypeVar("Product", bound=BaseModel)

RECORD_VERSION = 2
"""Of the form that records have; those of an earlier one prove nothing of themselves and are not believed."""


class StageRecord(Spec):
    """One stored result of one stage."""

    version: Literal[2]
    """``RECORD_VERSION``."""

    stage: str
    """The stage's name."""

    components: dict[str, str]
    """The components of its key."""

    product: dict[str, Any]
    """What it made (references and final values), as JSON."""

    created: datetime
    """When, in UTC."""

    sha256: str
    """Digest of the canonical JSON of everything above."""


def read_product(store: ArtifactStore, key: StageKey, product_type: type[Product]) -> Product | None:
    """What a key's record says was made.

    Returns:
        None where there is no record, or none that can be believed: it cannot be read, its content is not what was
        written, or it was written for another key. The log then names it.
    """
    return read_recorded(store, key.stage, key.sha256, product_type)


def read_recorded(store: ArtifactStore, stage: str, key_sha256: str, product_type: type[Product]) -> Product | None:
    """As ``read_product``, for a key of which only the digest is known."""
    location = store.root / record_path(stage, key_sha256)
    try:
        data = location.read_bytes()
    except StorageNotFoundError:
        return None
    except OSError as error:  # of a local disk
        _warn(location, f"it cannot be read: {error}")
        return None
    try:
        values = json.loads(data)
        if _is_of_another_version(values):
            log.info("The record %s has the form of another version of Trainyard; its stage runs again.", location.url)
            return None
        record = StageRecord.model_validate(values)
        doubt = _doubt(values, record, stage, key_sha256)
        if doubt is None:
            return product_type.model_validate(record.product)
    except ValueError as error:  # no JSON, no record, or no such product
        doubt = "it cannot be read" if not isinstance(error, ValidationError) else f"it is none: {error}"
    _warn(location, doubt)
    return None


def touch_record(store: ArtifactStore, key: StageKey) -> None:
    """Note that a record was used; 'trainyard gc' removes the least recently used."""
    (store.root / record_path(key.stage, key.sha256)).touch()


def write_record(store: ArtifactStore, key: StageKey, product: BaseModel) -> None:
    """Keep a result; a later one of the same key replaces it."""
    content = {
        "version": RECORD_VERSION,
        "stage": key.stage,
        "components": dict(key.components),
        "product": json.loads(product.model_dump_json()),  # as text has it: NaN is a string there
        "created": datetime.now(timezone.utc).isoformat(),
    }
    text = json.dumps({**content, "sha256": digest_value(content)}, indent=1, ensure_ascii=False)
    (store.root / record_path(key.stage, key.sha256)).write_bytes(text.encode())


def record_path(stage: str, key_sha256: str) -> str:
    """Where a record is, below the store's URL."""
    return f"cache/{stage}/{key_sha256}.json"


def _is_of_another_version(values: Any) -> bool:
    """Records of the first form had no version."""
    return isinstance(values, dict) and "stage" in values and values.get("version") != RECORD_VERSION


def _doubt(values: dict[str, Any], record: StageRecord, stage: str, key_sha256: str) -> str | None:
    """Why a record cannot be believed to be that of a key, or None."""
    found = digest_value({name: value for name, value in values.items() if name != "sha256"})
    if found != record.sha256:
        return f"its content hashes to {found[:12]}, not to {record.sha256[:12]} as when it was written"
    if record.stage != stage:
        return f"it is a record of the stage {record.stage!r}, not of {stage!r}"
    if StageKey(stage, record.components).sha256 != key_sha256:
        return f"it is the record of another key of the stage {stage!r}"
    return None


def _warn(location: Location, doubt: str) -> None:
    log.warning("The record %s is damaged and not used: %s. Its stage runs again.", location.url, doubt)
