"""Run pip under the supervisor, and say in one sentence why it failed."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from packaging.utils import canonicalize_name

from trainyard.tasks.errors import InvalidInputError, PermanentError, PipelineError, StageTimeoutError, TransientError
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.packages.requirements import without_password
from trainyard.tasks.training.process import run_command

_ELSEWHERE = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"}
_OURS = ("TRAINYARD_", "PREFECT_")  # nothing that a package's build should see
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ConnectionResetError|ReadTimeoutError|ProxyError|NameResolutionError"
    r"|RemoteDisconnected|IncompleteRead|Temporary failure in name resolution|Could not resolve host"
    r"|Network is unreachable|Max retries exceeded|Connection refused|HTTP error 5\d\d|Read timed out"
)
_ABSENT = re.compile(r"Could not find a version that satisfies the requirement (.+) \(from versions: (.*)\)")
_UNBUILT = re.compile(r"Failed (?:building wheel for|to build) (\S+)|metadata-generation-failed|subprocess-exited")
_ASKED = re.compile(r"The user requested (?:\(constraint\) )?(?P<name>[\w.-]+)(?P<rest>.*)")
_CAUSES = re.compile(r"The conflict is caused by:\n((?:\s{4,}\S.*\n?)+)")


def pip_command(
    python: Path, arguments: tuple[str, ...], environment: Mapping[str, str], cwd: Path, timeout_s: float | None
) -> LaunchCommand:
    """Build pip's command for an interpreter's environment; index, proxies, credentials are those of the machine.

    Args:
        python: The interpreter.
        arguments: For example ``("install", "-r", "requirements.txt")``.
        environment: This process's environment.
        cwd: Where it runs: a folder without packages.
        timeout_s: Seconds until it is ended.
    """
    kept = {k: v for k, v in environment.items() if k not in _ELSEWHERE and not k.startswith(_OURS)}
    if kept.get("PIP_RETRIES") == "0":  # without a retry, pip does not say that the index cannot be reached
        kept["PIP_RETRIES"] = "1"
    forced = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return LaunchCommand(
        argv=(str(python), "-m", "pip", *arguments),
        env={"PIP_RETRIES": "2", **kept, **forced},
        cwd=cwd,
        timeout_s=timeout_s,
    )


def run_installer(
    command: LaunchCommand, what: str, log_path: Path, held: int, explain: Callable[[str], PipelineError]
) -> None:
    """Run an installer to its end; it ends with this process, however that ends.

    Args:
        command: pip or a conda tool.
        what: What it makes, for messages.
        log_path: Receives its output, in place of what an earlier one left there.
        held: The descriptor of the lock that it works under.
        explain: Says from its output why it failed.

    Raises:
        PipelineError: As ``explain`` says; ``TransientError`` where it was killed.
    """
    log_path.write_text("")
    report = run_command(command, log_path=log_path, grace_s=2.0, on_tick=lambda: None, held=held)
    if report.reason == "exited" and report.returncode == 0:
        return
    if report.reason == "deadline":
        raise StageTimeoutError(f"{what} took longer than {command.timeout_s:g} seconds; its output is in {log_path}")
    if report.reason != "exited" or report.returncode < 0:
        how = report.error or (f"signal {-report.returncode}" if report.returncode < 0 else report.reason)
        raise TransientError(f"{what}: the installer was ended from outside ({how}); its output is in {log_path}")
    raise explain(log_path.read_text(errors="replace"))


def run_pip(
    python: Path,
    arguments: tuple[str, ...],
    what: str,
    log_path: Path,
    held: int,
    timeout_s: float | None,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run pip; see ``run_installer``, and ``pip_failure`` for the origins."""
    command = pip_command(python, arguments, os.environ, log_path.parent, timeout_s)
    run_installer(command, what, log_path, held, lambda output: pip_failure(what, output, log_path, origins))


def pip_failure(
    what: str, output: str, log_path: Path, origins: Mapping[str, str] = MappingProxyType({})
) -> PipelineError:
    """What pip's output says about why it failed.

    Args:
        what: What was installed, for the message.
        output: What pip printed.
        log_path: Where all of it is.
        origins: Who asks for a package, by its normalised name.

    Returns:
        A ``TransientError`` where another attempt may help, an ``InvalidInputError`` where the request is at fault.
    """
    where = f"pip's output is in {log_path}"
    if "No space left on device" in output:
        return PermanentError(
            f"{what}: the disk is full; free some space, or set TRAINYARD_HOME to a larger disk; {where}"
        )
    if causes := _CAUSES.search(output):
        lines = "; ".join(_said(line, origins) for line in causes.group(1).splitlines() if line.strip())
        return InvalidInputError(f"{what}: the packages contradict each other: {lines}; {where}")
    if "CERTIFICATE_VERIFY_FAILED" in output:
        return PermanentError(
            f"{what}: the package index shows a certificate that is not trusted here; see PIP_CERT; {where}"
        )
    if _UNREACHABLE.search(output):
        return TransientError(
            f"{what}: the Python package index cannot be reached; check the network, HTTPS_PROXY and PIP_INDEX_URL; "
            f"{where}"
        )
    if absent := _ABSENT.search(output):
        return InvalidInputError(f"{what}: {_absence(absent.group(1), absent.group(2))}; {where}")
    if "DO NOT MATCH THE HASHES" in output:
        return InvalidInputError(f"{what}: a package is not the one whose hash was given or locked; {where}")
    if unbuilt := _UNBUILT.search(output):
        name = unbuilt.group(1) or "a package"
        return InvalidInputError(f"{what}: {name} has to be built from source, and that failed; {where}")
    errors = re.findall(r"^ERROR: (.+)$", output, flags=re.MULTILINE)
    return InvalidInputError(f"{what}: {without_password(errors[-1]) if errors else 'pip failed'}; {where}")


def _absence(requirement: str, versions: str) -> str:
    if versions.strip() in ("", "none"):
        return f"the package index has no {requirement} for this Python on this machine (is the name right?)"
    newest = versions.split(", ")[-8:]
    return f"the package index has no {requirement}; it has {', '.join(newest)}"


def _said(line: str, origins: Mapping[str, str]) -> str:
    """A cause as pip words it, with the side that is installed, or who asks, named as such."""
    text = without_password(line.strip())
    found = _ASKED.fullmatch(text)
    if found is None:
        return text
    name = canonicalize_name(found["name"])
    if name not in origins:  # one of ours, held as it is
        return f"{found['name']} {found['rest'].removeprefix('==')} is installed and never replaced"
    return f"{origins[name]} asks for {found['name']}{found['rest']}"
