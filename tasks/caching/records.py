"""Stage records: what a stage made under which key, kept in the store beside the artifacts."""

from datetime import datetime, timezone
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.errors import StorageNotFoundError
from trainyard.tasks.specs.spec import Spec

Product = TypeVar("Product", bound=BaseModel)


class StageRecord(Spec):
    """One stored result of one stage."""

    stage: str
    """The stage's name."""

    components: dict[str, str]
    """The components of its key."""

    product: dict[str, Any]
    """What it made (references), as JSON."""

    created: datetime
    """When, in UTC."""


def read_product(store: ArtifactStore, key: StageKey, product_type: type[Product]) -> Product | None:
    """What a key's record says was made, or None where there is no record, or none that can be read."""
    return read_recorded(store, key.stage, key.sha256, product_type)


def read_recorded(store: ArtifactStore, stage: str, key_sha256: str, product_type: type[Product]) -> Product | None:
    """As ``read_product``, for a key of which only the digest is known."""
    try:
        data = (store.root / record_path(stage, key_sha256)).read_bytes()
        return product_type.model_validate(StageRecord.model_validate_json(data).product)
    except (StorageNotFoundError, ValidationError):
        return None


def touch_record(store: ArtifactStore, key: StageKey) -> None:
    """Note that a record was used; 'trainyard gc' removes the least recently used."""
    (store.root / record_path(key.stage, key.sha256)).touch()


def write_record(store: ArtifactStore, key: StageKey, product: BaseModel) -> None:
    """Keep a result; a later one of the same key replaces it."""
    record = StageRecord(
        stage=key.stage,
        components=dict(key.components),
        product=product.model_dump(mode="json"),
        created=datetime.now(timezone.utc),
    )
    (store.root / record_path(key.stage, key.sha256)).write_bytes(record.model_dump_json(indent=1).encode())


def record_path(stage: str, key_sha256: str) -> str:
    """Where a record is, below the store's URL."""
    return f"cache/{stage}/{key_sha256}.json"
