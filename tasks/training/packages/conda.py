"""What a job asks of conda: programs and libraries, in an environment of their own beside the Python one."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.errors import InvalidInputError, PermanentError, PipelineError, TransientError
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.packages.installed import PROTECTED
from trainyard.tasks.training.packages.lock import environments
from trainyard.tasks.training.packages.pip import run_installer
from trainyard.tasks.training.packages.requirements import Requirements, add_line, without_password

log = logging.getLogger(__name__)

TOOLS = ("micromamba", "mamba", "conda")
DEFAULT_CHANNEL = "conda-forge"
STAMP = ".trainyard-conda.json"
OURS = {"pytorch": "torch", **{name: name for name in PROTECTED}}
"""Conda's names of what is installed and never replaced, and pip's."""

_SPEC = re.compile(
    r"(?:(?P<channel>\w[\w./:-]*)::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?P<version>[^\s=<>!~][^\s]*|[=<>!~].*)?"
)
_UNREACHABLE = re.compile(
    r"CondaHTTPError|Could not resolve host|Connection(?: was)? (?:failed|refused|reset)|Timeout was reached"
    r"|Download error|NewConnectionError|Temporary failure in name resolution|ConnectTimeout",
    re.IGNORECASE,
)


_WHAT_FAILED = re.compile(r"^(?:\w*Error\b|error\b|critical\b|Could not solve\b)", re.IGNORECASE)
_MAX_LINES = 5


@dataclass(slots=True)
class CondaRequest:
    """Everything that a job asks of conda."""

    channels: list[str] = field(default_factory=list)
    """Where packages come from, first choice first."""

    specs: list[str] = field(default_factory=list)
    """Conda's match specifications."""

    problems: list[str] = field(default_factory=list)
    """What cannot be read or met, one sentence each."""


@dataclass(frozen=True, slots=True)
class CondaEnvironment:
    """A conda environment that was built.

    Args:
        path: Its prefix.
        site_packages: Its folder of Python packages, where it has the Python that Trainyard runs on.
    """

    path: Path
    site_packages: Path | None

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Variables for processes that use it: its programs and libraries come after those of everybody else."""
        programs = [inherited.get("PATH", ""), str(self.path / "bin")]
        libraries = [inherited.get("LD_LIBRARY_PATH", ""), str(self.path / "lib")]
        joined = {"PATH": programs, "LD_LIBRARY_PATH": libraries}
        found = {name: ":".join(part for part in parts if part) for name, parts in joined.items()}
        return {**found, "CONDA_PREFIX": str(self.path)}


def read_conda(
    source: Path,
    packages: Iterable[str],
    file: str | None,
    pip: Requirements,
    installed: Mapping[str, str],
    python: str,
) -> CondaRequest:
    """Read what a job asks of conda; what its file asks of pip goes to the other requirements of pip.

    Args:
        source: The source directory.
        packages: Conda's match specifications.
        file: An environment file (YAML), relative to the source directory.
        pip: Receives the file's ``pip`` section.
        installed: Versions of what is installed, by pip's names.
        python: The version of the Python that trains, for example ``3.11.7``.
    """
    found = CondaRequest()
    versions = {**installed, "python": python}
    for text in packages:
        _add_spec(found, text.strip(), f"conda_packages {text.strip()!r}", versions)
    if file is not None:
        for key, value in _read_file(found, source, file).items():
            if key == "channels":
                found.channels += [str(channel) for channel in value or ()]
            elif key == "dependencies":
                _add_dependencies(found, pip, file, value or [], versions)
            elif key not in ("name", "prefix"):  # names of an environment that is not made
                found.problems.append(f"{file}: {key!r} is not supported; a conda file has channels and dependencies")
    if any(without_password(channel) != channel for channel in found.channels):
        found.problems.append(f"{file}: a channel's address holds a password; use conda's own configuration for it")
    for channel in (each for each in found.channels if each.startswith("-")):
        found.problems.append(f"{file}: {channel!r} is no channel")
    found.channels = [channel for channel in found.channels if channel != "nodefaults"] or [DEFAULT_CHANNEL]
    return found


def _read_file(found: CondaRequest, source: Path, file: str) -> dict[str, Any]:
    path = source / file
    if not path.resolve().is_relative_to(source.resolve()):
        found.problems.append(f"conda_dependencies_file {file!r} lies outside the source directory {str(source)!r}")
    elif not path.is_file():
        found.problems.append(f"conda_dependencies_file {file!r} is not a file in {str(source)!r}")
    else:
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            found.problems.append(f"conda_dependencies_file {file!r} is not YAML: {str(error).splitlines()[0]}")
            return {}
        if isinstance(content, dict):
            return {str(key): value for key, value in content.items()}
        found.problems.append(f"conda_dependencies_file {file!r} is no mapping with channels and dependencies")
    return {}


def _add_dependencies(
    found: CondaRequest, pip: Requirements, file: str, entries: list[Any], versions: Mapping[str, str]
) -> None:
    for entry in entries:
        if isinstance(entry, str):
            _add_spec(found, entry.strip(), f"{file} ({entry.strip()})", versions)
        elif isinstance(entry, dict) and list(entry) == ["pip"]:
            for text in entry["pip"] or ():
                add_line(pip, str(text).strip(), f"{file} (pip: {without_password(str(text).strip())})")
        else:
            found.problems.append(f"{file}: a dependency is a text, or a list below 'pip:'; got {entry!r}")


def _add_spec(found: CondaRequest, text: str, origin: str, versions: Mapping[str, str]) -> None:
    """Add a specification; what is installed and never replaced is only held against its version."""
    parsed = _SPEC.fullmatch(text)
    if parsed is None:
        found.problems.append(f"{origin} is no conda specification; write name, name=1.5 or channel::name>=1.5")
        return
    name = parsed["name"].lower()
    if name == "pip":
        return  # what installs the file's pip section is ours
    ours = "python" if name == "python" else OURS.get(name)
    if ours is None:
        found.specs.append(text)
    elif ours not in versions:
        found.problems.append(f"{origin} asks for {name}, which is not installed; install it beside Trainyard")
    elif not _accepts(parsed["version"] or "", versions[ours]):
        found.problems.append(f"{origin} asks for {text}, but {ours} {versions[ours]} is installed and never replaced")


def _accepts(condition: str, version: str) -> bool:
    """Whether a conda version condition takes a version: ``=2.1`` is a prefix, ``2.1`` and ``==2.1`` are exact."""
    wanted = re.split(r"(?<=[\w*])[= ]", condition.strip(), maxsplit=1)[0]  # without the build
    if not wanted or wanted == "*":
        return True
    if wanted.startswith("=") and not wanted.startswith("=="):
        wanted = f"=={wanted[1:].removesuffix('.*').removesuffix('*')}.*"
    elif wanted[0].isdigit():
        wanted = f"=={wanted}"
    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def find_tool() -> str | None:
    """The first of the tools that is installed."""
    return next((found for name in TOOLS if (found := shutil.which(name))), None)


def tool_problems(request: CondaRequest) -> list[str]:
    """What is missing to meet a request."""
    if not request.specs or find_tool() is not None:
        return []
    return [
        f"conda packages are asked for ({', '.join(request.specs)}), and none of {', '.join(TOOLS)} is on the PATH; "
        "install micromamba, or name packages that pip has in pip_packages"
    ]


def conda_command(
    tool: str, prefix: Path, request: CondaRequest, environment: Mapping[str, str], timeout_s: float | None
) -> LaunchCommand:
    """The command that makes an environment; the three tools take the same options."""
    channels = [word for channel in request.channels for word in ("--channel", channel)]
    outside = ("CONDA_", "MAMBA_DEFAULT", "TRAINYARD_", "PREFECT_", "PYTHON")
    kept = {name: value for name, value in environment.items() if not name.startswith(outside) or name == "CONDARC"}
    return LaunchCommand(
        argv=(tool, "create", "--yes", "--prefix", str(prefix), "--override-channels", *channels, *request.specs),
        env=kept,
        cwd=prefix.parent,
        timeout_s=timeout_s,
    )


def build_conda(request: CondaRequest, home: Path, python: str, timeout_s: float | None) -> CondaEnvironment | None:
    """The environment of a request: the one that is there, else a new one; None where nothing is asked for.

    Args:
        request: What is asked for, without problems.
        home: This machine's directory.
        python: The version of the Python that trains.
        timeout_s: Seconds that it may take.

    Raises:
        InvalidInputError: The request cannot be met, or its Python packages are for another Python.
        TransientError: A channel cannot be reached, or the tool was killed.
    """
    if not request.specs:
        return None
    name = digest_value({"channels": request.channels, "specs": sorted(request.specs), "machine": list(os.uname()[4:])})
    prefix = environments(home) / f"conda-{name[:32]}"
    with exclusive(prefix.with_suffix(".lock"), "the same conda environment is built", timeout_s) as held:
        if not (prefix / STAMP).is_file():
            _build(request, prefix, held, timeout_s)
    return CondaEnvironment(prefix, _site_packages(prefix, python))


def _build(request: CondaRequest, prefix: Path, held: int, timeout_s: float | None) -> None:
    tool = find_tool()
    if tool is None:
        raise InvalidInputError(tool_problems(request)[0])
    log.info("Building a conda environment with %s: %s", Path(tool).name, ", ".join(request.specs))
    shutil.rmtree(prefix, ignore_errors=True)
    log_path = prefix.with_suffix(".log")
    command = conda_command(tool, prefix, request, os.environ, timeout_s)
    run_installer(command, "The conda environment", log_path, held, lambda output: _failure(output, log_path))
    (prefix / STAMP).write_text(json.dumps({"channels": request.channels, "specs": request.specs}))


def _failure(output: str, log_path: Path) -> PipelineError:
    where = f"the tool's output is in {log_path}"
    if "No space left on device" in output:
        return PermanentError(f"The conda environment: the disk is full; {where}")
    if _UNREACHABLE.search(output):
        return TransientError(f"The conda environment: a channel cannot be reached; check the network; {where}")
    said = without_password("; ".join(_what_failed(output)))
    return InvalidInputError(f"The conda environment cannot be made: {said}; {where}")


def _what_failed(output: str) -> list[str]:
    """What a tool says of its failure: conda's advice follows it, so that it is not always at the end."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    begin = next((n for n, line in enumerate(lines) if _WHAT_FAILED.match(line)), len(lines) - 3)
    return lines[max(begin, 0) :][:_MAX_LINES]


def _site_packages(prefix: Path, python: str) -> Path | None:
    """Where the Python packages of an environment are; refuses those of another Python."""
    found = next((path.name for path in prefix.glob("conda-meta/python-[0-9]*.json")), None)
    if found is None:
        return None
    version = found.removeprefix("python-").split("-")[0]
    if version.split(".")[:2] != python.split(".")[:2]:
        raise InvalidInputError(
            f"The conda environment {prefix} came with Python {version}, and training runs on Python {python}: its "
            f"Python packages cannot be used. Ask for them in pip_packages, or for versions that conda has for Python "
            f"{'.'.join(python.split('.')[:2])}."
        )
    return prefix / "lib" / f"python{'.'.join(version.split('.')[:2])}" / "site-packages"
