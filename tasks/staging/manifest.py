"""The dataset manifest: which bytes a model is trained on, object by object."""

from functools import cached_property
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from trainyard.tasks.artifacts.digests import canonical_json, digest_value
from trainyard.tasks.specs.spec import Spec

_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class ManifestEntry:
    """One staged object; no model, for there may be a hundred thousand of them, and a model is larger."""

    key: str
    """Path relative to the reference, with forward slashes."""

    num_bytes: Annotated[int, Field(ge=0)]
    """Size in bytes."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of its bytes."""

    version: str
    """Its ETag, or what stands for it, when it was staged."""


class DatasetManifest(Spec):
    """Every object of a dataset, pinned."""

    uri: str
    """The reference's address when it was staged."""

    single_object: bool
    """Whether the reference is one object (the script gets a file) or a prefix (it gets a directory)."""

    objects: tuple[ManifestEntry, ...]
    """Every object, sorted by key."""

    @cached_property
    def sha256(self) -> str:
        """The dataset's identity: what a script is given, and nothing of where it came from or its ETags."""
        objects = [[entry.key, entry.num_bytes, entry.sha256] for entry in self.objects]
        return digest_value({"single_object": self.single_object, "objects": objects})

    @property
    def num_bytes(self) -> int:
        """Size in bytes of all objects together."""
        return sum(entry.num_bytes for entry in self.objects)

    def to_bytes(self) -> bytes:
        """The canonical JSON of the whole manifest, for the record."""
        return canonical_json(self.model_dump(mode="json"))
