"""The installed distributions, whose metadata is read once a process."""

import inspect
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_NO_EXTRA = {"extra": ""}


@dataclass(frozen=True, slots=True)
class Installed:
    """A distribution as its metadata describes it.

    Args:
        name: Its name, as it writes it.
        version: Its version.
        requires: What it requires of others, extras included.
        source: Where more of it is read.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    source: Distribution

    @property
    def requirements(self) -> list[Requirement]:
        """What it requires here and without extras; what cannot be read is left out."""
        found = []
        for text in self.requires:
            with suppress(InvalidRequirement):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate(_NO_EXTRA):
                    found.append(requirement)
        return found

    @property
    def edited_in(self) -> Path | None:
        """The directory that it is imported from, where it is installed to be edited (PEP 610); else None."""
        try:
            origin = json.loads(self.source.read_text("direct_url.json") or "{}")
            edited = bool(origin["dir_info"]["editable"])
            address = urlsplit(str(origin["url"]))
        except (ValueError, TypeError, KeyError):
            return None
        return Path(unquote(address.path)) if edited and address.scheme == "file" else None

    @property
    def modules(self) -> set[str]:
        """The top-level modules and packages that it provides."""
        declared = (self.source.read_text("top_level.txt") or "").split()
        if declared:
            return set(declared)
        found = (f.parts[0] if len(f.parts) > 1 else inspect.getmodulename(f.name) for f in self.source.files or ())
        return {name for name in found if name and "." not in name}


def installed_distributions() -> Mapping[str, Installed]:
    """Every installed distribution by its normalised name (PEP 503); of two, the one that is imported."""
    return _read(_import_folders())


def module_providers() -> Mapping[str, list[str]]:
    """Normalised names of the distributions that provide each top-level module."""
    return _read_providers(_import_folders())


def _import_folders() -> tuple[tuple[str, int], ...]:
    """Where modules are imported from, with the times that change when something is installed there or removed."""
    folders = []
    for folder in sys.path:
        with suppress(OSError):  # there need not be one
            folders.append((folder, os.stat(folder or ".").st_mtime_ns))
    return tuple(folders)


@lru_cache(maxsize=1)
def _read(folders: tuple[tuple[str, int], ...]) -> Mapping[str, Installed]:
    found: dict[str, Installed] = {}
    for distribution in distributions():
        try:
            metadata = distribution.metadata  # each look at it reads the file
        except FileNotFoundError:  # what the package importlib_metadata raises, where the standard library has none
            continue
        name, version = metadata["Name"], metadata["Version"]
        if name and version:  # else an uninstallation has left a part of it
            requires = tuple(metadata.get_all("Requires-Dist") or ())
            found.setdefault(canonicalize_name(name), Installed(name, version, requires, distribution))
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)
def _read_providers(folders: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    providers: dict[str, list[str]] = {}
    for name, installed in _read(folders).items():
        for module in installed.modules:
            providers.setdefault(module, []).append(name)
    return providers
