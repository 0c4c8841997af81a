import pytest

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.pip import explain_failure, pip_environment, run_pip
from trainyard.deployments.environment.problems import InstallerKilledError, SetupError

LOOKING = "Looking in indexes: https://mirror.example/simple, https://user:****@other.example/simple\n"

# Copied from pip's output.
NO_NAME = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a "
    "new connection: [Errno -3] Temporary failure in name resolution')': /simple/torch/\n"
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)
BAD_CERTIFICATE = (
    "WARNING: Retrying (...) after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: "
    "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in chain'))': /simple/torch/\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)
NO_WHEEL = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.1)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)
NOT_THERE = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)
FULL_DISK = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (NO_NAME, "cannot reach the Python package index (tried https://pypi.org/simple); check the network"),
        (LOOKING + NO_NAME, "tried https://mirror.example/simple, https://user:****@other.example/simple"),
        (BAD_CERTIFICATE, "shows a certificate that is not trusted here"),
        (NO_WHEEL, "pip failed with exit code 1: No matching distribution found for torch==2.13.0"),
        (NOT_THERE, "(tried https://pypi.org/simple) offers no torch==2.13.0 to this Python"),
        (NO_NAME + FULL_DISK, "the disk is full"),
        (FULL_DISK, "the disk is full"),
        ("", "pip failed with exit code 1: no error line"),
    ],
    ids=["no name", "mirrors", "certificate", "no wheel", "nothing", "full disk after trouble", "full disk", "silent"],
)
def test_the_cause_is_named(output, expected, tmp_path):
    message = explain_failure(1, output, tmp_path / "setup.log")
    assert expected in message
    assert message.endswith(str(tmp_path / "setup.log"))
    assert "\n" not in message


def test_pip_stays_in_its_environment_and_asks_nothing():
    env = pip_environment({"PIP_USER": "1", "PIP_TARGET": "/x", "PYTHONPATH": "/y", "PIP_INDEX_URL": "https://m"})
    assert env == {
        "PIP_INDEX_URL": "https://m",
        "PIP_RETRIES": "2",
        "PIP_USER": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    assert pip_environment({"PIP_RETRIES": "9"})["PIP_RETRIES"] == "9"


def fake_python(tmp_path, script):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_failure_is_an_error_with_the_log(tmp_path):
    python = fake_python(tmp_path, "echo 'ERROR: no such thing'; exit 3")
    with pytest.raises(SetupError, match="exit code 3: no such thing"):
        run_pip(python, ["install", "x"], CommandLog(tmp_path / "logs" / "setup.log"))
    assert (tmp_path / "logs" / "setup.log").read_text().startswith(f"$ {python} -m pip install x\n")


def test_a_killed_pip_is_told_apart(tmp_path):
    with pytest.raises(InstallerKilledError, match="signal 9"):
        run_pip(fake_python(tmp_path, "kill -9 $$"), ["install", "x"], CommandLog(tmp_path / "setup.log"))
