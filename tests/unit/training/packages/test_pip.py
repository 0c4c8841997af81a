from pathlib import Path

import pytest

from trainyard.tasks.errors import InvalidInputError, PermanentError, TransientError
from trainyard.tasks.training.packages.pip import pip_command, pip_failure

RETRYING = (
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("
    "'<pip._vendor.urllib3.connection.HTTPSConnection>: Failed to establish a new connection: [Errno 111] "
    "Connection refused')': /simple/x/\n"
)
ABSENT = (
    "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: {})\n"
    "ERROR: No matching distribution found for x==9\n"
)
CONFLICT = """\
ERROR: Cannot install -r wanted.txt (line 1) and torch==2.13.0+cpu because these package versions have conflicts.

The conflict is caused by:
    The user requested typing-extensions<4.9
    torch 2.13.0+cpu depends on typing-extensions>=4.10.0
    The user requested torch==2.13.0+cpu

To fix this you could try to:
1. loosen the range of package versions you've specified
"""


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        (RETRYING + ABSENT.format("none"), TransientError, "cannot be reached"),
        (ABSENT.format("none"), InvalidInputError, "no x==9 for this Python"),
        (ABSENT.format("1.0, 2.0"), InvalidInputError, "it has 1.0, 2.0"),
        ("ERROR: HTTP error 503 while getting https://x\n", TransientError, "cannot be reached"),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", PermanentError, "disk is full"),
        ("  ERROR: Failed building wheel for thing\n", InvalidInputError, "thing has to be built from source"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n", InvalidInputError, "hash"),
        ("SSLError(CERTIFICATE_VERIFY_FAILED)\n" + RETRYING, PermanentError, "PIP_CERT"),
        ("ERROR: something at https://me:secret@host/x\n", InvalidInputError, r"https://\*\*\*\*@host/x"),
        ("", InvalidInputError, "pip failed"),
    ],
)
def test_what_pip_says_becomes_one_sentence(output, kind, says):
    error = pip_failure("The packages", output, Path("/x.log"))
    assert type(error) is kind
    with pytest.raises(kind, match=says):
        raise error
    assert "/x.log" in str(error) and "\n" not in str(error) and "secret" not in str(error)


def test_a_contradiction_names_who_asks_and_what_is_installed():
    text = str(pip_failure("P", CONFLICT, Path("/x.log"), {"typing-extensions": "a.txt, line 3,"}))
    assert "a.txt, line 3, asks for typing-extensions<4.9" in text
    assert "torch 2.13.0+cpu depends on typing-extensions>=4.10.0" in text
    assert "torch 2.13.0+cpu is installed and never replaced" in text


def test_pip_is_run_for_its_own_environment_with_the_machines_configuration():
    environment = {"PIP_INDEX_URL": "https://mirror", "PIP_TARGET": "/x", "PYTHONPATH": "/y", "PREFECT_API_KEY": "k"}
    command = pip_command(Path("/layer/bin/python"), ("install", "x"), environment, Path("/home"), 5.0)
    assert command.argv == ("/layer/bin/python", "-m", "pip", "install", "x")
    assert command.env["PIP_INDEX_URL"] == "https://mirror" and command.env["PIP_NO_INPUT"] == "1"
    assert not {"PIP_TARGET", "PYTHONPATH", "PREFECT_API_KEY"} & set(command.env)
    assert command.timeout_s == 5.0
