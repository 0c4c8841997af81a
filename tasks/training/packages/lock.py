"""Resolve what a job asks for, once: the exact packages that go on top of what is installed."""

import json
import logging
import platform
import re
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.records import read_product, write_record
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.training.packages.installed import OURSELVES, PROTECTED, broken_by, held_lines, installed_packages
from trainyard.tasks.training.packages.pip import run_pip
from trainyard.tasks.training.packages.requirements import Requirements

log = logging.getLogger(__name__)

WHAT = "The script's packages"


class LockedPackage(Spec):
    """One package of a layer."""

    name: str
    """Normalised."""

    version: str
    """Its version."""

    requirement: str
    """What pip is given to install exactly this."""


class PackageLock(Spec):
    """What a request comes to on top of what is installed; empty where all of it is installed already."""

    packages: tuple[LockedPackage, ...] = ()
    """Sorted by name."""


def lock_packages(asked: Requirements, context: StageContext, *, anew: bool) -> PackageLock:
    """The packages that a request comes to: what was found before under the same conditions, else what pip finds now.

    The answer is kept in the store, under the request and everything that is installed, so that every machine that
    shares the store and has the same environment uses the same versions, today and later, and no network is needed
    to know them.

    Args:
        asked: The request, without problems.
        context: Where the store and this machine's home are.
        anew: Whether to ask pip, whatever was found before.

    Raises:
        InvalidInputError: The request cannot be met; says what contradicts what.
        TransientError: The index cannot be reached.
    """
    if not asked.wanted:
        return PackageLock()
    key = lock_key(asked, installed_packages())
    path = environments(context.home) / f"resolve-{key.sha256[:32]}.lock"
    with exclusive(path, "the same packages are resolved", context.timeout_s) as lock:
        known = None if anew else read_product(context.store, key, PackageLock)
        if known is not None:
            return known
        found = _resolve(asked, environments(context.home) / f"resolve-{key.sha256[:32]}.log", context.timeout_s, lock)
        write_record(context.store, key, found)
    return found


def lock_key(asked: Requirements, installed: Mapping[str, str]) -> StageKey:
    """What decides which packages a request comes to, beside the index."""
    return StageKey(
        stage="packages",
        components={
            **{f"wanted[{n}]": text for n, text in enumerate(sorted({line.text for line in asked.wanted}))},
            **{f"constraint[{n}]": text for n, text in enumerate(sorted({line.text for line in asked.constraints}))},
            **{f"option[{n}]": text for n, text in enumerate(asked.options)},
            **{f"installed:{name}": version for name, version in installed.items() if name != OURSELVES},
            "python": str(sysconfig.get_config_var("SOABI") or platform.python_version()),
        },
    )


def lock_components(lock: PackageLock) -> dict[str, str]:
    """What of a lock decides a training's result, for its key."""
    return {f"package:{p.name}": p.requirement if " @ " in p.requirement else p.version for p in lock.packages}


def environments(home: Path) -> Path:
    """Where layers are, on this machine."""
    return home / "environments"


def _resolve(asked: Requirements, log_path: Path, timeout_s: float | None, lock: int) -> PackageLock:
    names = ", ".join(sorted({line.requirement.name for line in asked.wanted}))
    log.info("Looking up the script's packages: %s", names)
    with tempfile.TemporaryDirectory(dir=log_path.parent, prefix=".resolve-") as scratch:
        wanted, kept, report = (Path(scratch) / name for name in ("wanted.txt", "constraints.txt", "report.json"))
        installed = installed_packages()
        wanted.write_text(_text([*asked.options, *(line.text for line in asked.wanted), *held_lines(installed)]))
        ourselves = [f"{OURSELVES}=={installed[OURSELVES]}"] if OURSELVES in installed else []
        kept.write_text(_text([*(line.text for line in asked.constraints), *ourselves]))
        files = ("--requirement", str(wanted), "--constraint", str(kept), "--report", str(report))
        origins = _origins(asked)
        run_pip(Path(sys.executable), ("install", "--dry-run", *files), WHAT, log_path, lock, timeout_s, origins)
        found = read_report(json.loads(report.read_bytes()))
        log_path.unlink(missing_ok=True)
    broken = broken_by({package.name: package.version for package in found.packages})
    if broken:
        log.warning(
            "The script's packages hide installed versions that others need; these may fail to import in it: %s",
            ", ".join(broken),
        )
    return found


def _origins(asked: Requirements) -> dict[str, str]:
    """Who asks for a package; what is protected is asked for by what is installed."""
    lines = ((canonicalize_name(line.requirement.name), line.origin) for line in [*asked.constraints, *asked.wanted])
    return {name: origin for name, origin in lines if name not in PROTECTED}


def read_report(report: Mapping[str, Any]) -> PackageLock:
    """The packages of pip's installation report (its documented JSON, version 1)."""
    packages = [_locked(item) for item in report["install"]]
    return PackageLock(packages=tuple(sorted(packages, key=lambda package: package.name)))


def _locked(item: Mapping[str, Any]) -> LockedPackage:
    name, version, source = item["metadata"]["name"], item["metadata"]["version"], item["download_info"]
    hashes = (source.get("archive_info") or {}).get("hashes") or {}
    if item.get("is_direct"):
        vcs = source.get("vcs_info")
        address = f"{vcs['vcs']}+{source['url']}@{vcs['commit_id']}" if vcs else source["url"]
        folder = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        requirement = f"{name} @ {address}{folder}"
    else:
        requirement = f"{name}=={version}"
    if "sha256" in hashes:
        requirement += f" --hash=sha256:{hashes['sha256']}"
    return LockedPackage(name=canonicalize_name(name), version=version, requirement=requirement)


def lock_text(lock: PackageLock, options: list[str]) -> str:
    """A lock as a requirements file. Hashes count only where every package has one, as pip demands."""
    lines = [package.requirement for package in lock.packages]
    if not all(" --hash=" in line for line in lines):
        lines = [re.sub(r" --hash=\S+", "", line) for line in lines]
    return _text([*options, *lines])


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
