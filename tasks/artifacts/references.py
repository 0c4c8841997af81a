"""References: what stages hand each other instead of paths, tensors or models."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from trainyard.tasks.specs.spec import Spec


class ArtifactRef(Spec):
    """An immutable artifact: where it is, and proof of what it is."""

    uri: str
    """Address in the store, for people; the digest is the identity."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the file, or of the tree's listing (which holds the digest of each of its files)."""

    num_bytes: int = Field(ge=0)
    """Size in bytes; for a tree, of all its files together."""

    kind: Literal["file", "tree"] = "file"
    """A single file, or a directory as one unit."""


class TreeEntry(Spec):
    """One file of a tree."""

    path: str
    """Relative, with forward slashes."""

    sha256: str
    """Digest of the file's bytes."""

    num_bytes: int
    """Size in bytes."""

    executable: bool = False
    """Whether it may be run as a program."""


class TreeListing(Spec):
    """The files of a tree, sorted by path; its canonical JSON is what a tree's digest is taken of."""

    entries: tuple[TreeEntry, ...]
    """Every file."""


def iter_references(value: Any) -> Iterator[ArtifactRef]:
    """Every artifact reference inside a model, at any depth."""
    if isinstance(value, ArtifactRef):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from iter_references(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from iter_references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from iter_references(item)
