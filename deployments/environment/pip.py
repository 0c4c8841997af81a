"""Run pip, and say in one sentence why it failed."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.problems import InstallerKilledError, SetupError

_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ConnectionResetError|ReadTimeoutError|ProxyError|NameResolutionError"
    r"|RemoteDisconnected|Temporary failure in name resolution|Network is unreachable|Max retries exceeded"
    r"|Connection to \S+ timed out|Failed to establish a new connection"
)
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError")
_ABSENT = re.compile(r"satisfies the requirement (\S+).* \(from versions: none\)")
_DEFAULT_INDEX = "https://pypi.org/simple"


def run_pip(python: Path, arguments: list[str], log: CommandLog, env: Mapping[str, str] = os.environ) -> None:
    """Run pip in the environment of an interpreter.

    Args:
        python: The interpreter.
        arguments: For example ``["install", "-r", "requirements.lock"]``.
        log: Takes pip's whole output.
        env: Environment for pip.

    Raises:
        InstallerKilledError: A signal ended pip.
        SetupError: pip failed.
    """
    outcome = log.run([python, "-m", "pip", *arguments], pip_environment(env))
    if outcome.exit_code < 0:
        raise InstallerKilledError(f"pip was ended by signal {-outcome.exit_code}; run setup again; see {log.path}")
    if outcome.exit_code != 0:
        raise SetupError(explain_failure(outcome.exit_code, outcome.output, log.path))


def pip_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Environment in which pip installs into its own interpreter's environment, and asks nothing."""
    leading_elsewhere = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"}
    kept = {name: value for name, value in base.items() if name not in leading_elsewhere}
    defaults = {"PIP_RETRIES": "2"}  # pip's own five make a machine without network wait long for its sentence
    forced = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**defaults, **kept, **forced}


def explain_failure(exit_code: int, output: str, log_path: Path) -> str:
    """One message from pip's output: what failed, what was tried, what to do."""
    where = f"pip's full output is in {log_path}"
    if "No space left on device" in output:
        return f"the disk is full; free some space (the environment takes about 2 GB, 7 GB with CUDA); {where}"
    if _UNTRUSTED.search(output):
        return (
            f"the Python package index ({_indexes(output)}) shows a certificate that is not trusted here; where a "
            f"proxy or mirror signs its own, name its certificate file in PIP_CERT and try again; {where}"
        )
    if _UNREACHABLE.search(output):
        return (
            f"cannot reach the Python package index (tried {_indexes(output)}); check the network, set HTTPS_PROXY "
            f"to your proxy or PIP_INDEX_URL to a mirror that this machine reaches, and try again; {where}"
        )
    if absent := _ABSENT.search(output):
        return (
            f"the Python package index (tried {_indexes(output)}) offers no {absent.group(1)} to this Python on this "
            f"machine, or cannot be reached; check PIP_INDEX_URL and the network, and try again; {where}"
        )
    errors = re.findall(r"^\s*ERROR: (.+)$", output, flags=re.MULTILINE)
    return f"pip failed with exit code {exit_code}: {errors[-1] if errors else 'no error line'}; {where}"


def _indexes(output: str) -> str:
    """The index addresses that pip named; it hides credentials in them itself."""
    named = re.search(r"^Looking in indexes: (.+)$", output, flags=re.MULTILINE)
    return named.group(1) if named else _DEFAULT_INDEX
