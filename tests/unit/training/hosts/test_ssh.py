import shutil
import subprocess
import sys

import pytest

from trainyard import Hosts
from trainyard.tasks.runtime.node.protocol import HELLO
from trainyard.tasks.training.hosts.program import agent_program
from trainyard.tasks.training.hosts.ssh import explain, ssh_command


def command(**changes):
    hosts = Hosts(**{"hosts": ["10.0.0.1"], **changes})
    return ssh_command(hosts, hosts.hosts[0], "/opt/venv/bin/python")


def effective(**changes):
    """The options that ssh itself makes of a command."""
    if shutil.which("ssh") is None:
        pytest.skip("needs ssh (Debian: openssh-client)")
    words = command(**changes)
    done = subprocess.run([words[0], "-G", *words[1:]], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_ssh_checks_host_keys_and_never_asks():
    options = effective()
    assert options["stricthostkeychecking"] == "true"
    assert options["batchmode"] == "yes"
    assert options["controlmaster"] == "false"
    assert options["forwardagent"] == "no"


def test_unless_told_otherwise():
    options = effective(check_host_keys=False)
    assert options["stricthostkeychecking"] == "false"
    assert options["userknownhostsfile"] == "/dev/null"


def test_what_the_user_says_wins(tmp_path):
    (tmp_path / "config").write_text("Host *\n  HostName gate\n  Port 7\n")
    options = effective(
        user="me",
        port=2222,
        ssh_config=str(tmp_path / "config"),
        ssh_options={"ConnectTimeout": "3", "Compression": "yes"},
    )
    assert (options["user"], options["port"], options["hostname"]) == ("me", "2222", "gate")
    assert (options["connecttimeout"], options["compression"]) == ("3", "yes")
    assert effective(ssh_config=str(tmp_path / "config"))["port"] == "7"


def test_the_interpreter_is_one_word_for_the_shell_there(tmp_path):
    """The last word of the command is what the login shell there runs."""
    odd = tmp_path / "it's $(touch bad) a dir"
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    hosts = Hosts(hosts=["h"])
    words = ssh_command(hosts, hosts.hosts[0], str(odd / "python"))
    assert words[-3:-1] == ("--", "h")
    done = subprocess.run(
        ["sh", "-c", words[-1]], input=agent_program(10.0), capture_output=True, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith(HELLO)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("ssh: connect to host h port 22: Connection refused", "nothing listens for ssh on port 22"),
        ("ssh: connect to host h port 22: Connection timed out", "does not answer on port 22"),
        ("ssh: Could not resolve hostname h: Name or service not known", "its name is not known here"),
        ("h: Permission denied (publickey).", "does not let the user in with a key"),
        ("sh: 1: exec: /p/python: not found", "there is no /p/python"),
        ("command-line: line 0: Bad configuration option: foo", "does not take its configuration"),
        ("Python 3.10 or newer is needed, and this is 3.8.2", "Python 3.10 or newer is needed"),
        ("", "it said nothing"),
    ],
)
def test_what_ssh_says_is_explained(said, meaning):
    hosts = Hosts(hosts=["h"])
    assert meaning in explain(hosts, hosts.hosts[0], "/p/python", 255, said)
