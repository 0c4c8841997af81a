"""Stage records: what a stage made under which key, kept in the store beside the artifacts."""

from datetime import datetime, timezone
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.errors import StorageNotFoundError
from trainyard.tasks.specs.spec import Spec

Product = TypeVar("Product", bound=BaseModel)


class StageRecord(Spec, Generic[Product]):
    """One stored result of one stage."""

    stage: str
    """The stage's name."""

    components: dict[str, str]
    """The components of its key."""

    product: Product
    """What it made: references."""

    created: datetime
    """When, in UTC."""


def read_record(store: ArtifactStore, key: StageKey, product_type: type[Product]) -> StageRecord[Product] | None:
    """The record of a key, or None where there is none, or none that can be read."""
    try:
        data = (store.root / _path(key)).read_bytes()
        return StageRecord[product_type].model_validate_json(data)  # type: ignore[valid-type]
    except (StorageNotFoundError, ValidationError):
        return None


def write_record(store: ArtifactStore, key: StageKey, product: BaseModel) -> None:
    """Keep a result; a later one of the same key replaces it."""
    record = StageRecord[type(product)](  # type: ignore[misc]
        stage=key.stage, components=dict(key.components), product=product, created=datetime.now(timezone.utc)
    )
    (store.root / _path(key)).write_bytes(record.model_dump_json(indent=1).encode())


def _path(key: StageKey) -> str:
    return f"cache/{key.stage}/{key.sha256}.json"
