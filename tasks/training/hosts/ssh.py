"""The ssh command for a host, and what its complaints mean."""

import re
import shlex
from pathlib import Path

from trainyard.tasks.specs.hosts import Host, Hosts

CONNECT_TIMEOUT_S = 15

_BOOTSTRAP = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""Runs the program that arrives first on standard input: nothing has to be installed there, and nothing shows in
process lists."""

_ALWAYS = {
    "BatchMode": "yes",  # never ask for a password
    "ConnectTimeout": str(CONNECT_TIMEOUT_S),
    "ControlMaster": "no",  # a shared connection would be a process that outlives the run
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "6",
    "LogLevel": "INFO",
}


def ssh_command(hosts: Hosts, host: Host, python: str) -> tuple[str, ...]:
    """The command that starts an agent on a host.

    Args:
        hosts: How to connect.
        host: To what.
        python: The interpreter there. The only word that the login shell there reads, quoted.
    """
    # ssh takes the first value that it is given for an option: the user's own come first.
    options = [*hosts.ssh_options.items(), *_host_key_options(hosts).items(), *_ALWAYS.items()]
    if hosts.identity_file is not None:
        options.append(("IdentitiesOnly", "yes"))
    return (
        "ssh",
        "-T",
        *(("-F", _local(hosts.ssh_config)) if hosts.ssh_config is not None else ()),
        *(("-i", _local(hosts.identity_file)) if hosts.identity_file is not None else ()),
        *(("-p", str(hosts.port)) if hosts.port is not None else ()),
        *(("-l", hosts.user) if hosts.user is not None else ()),
        *(word for name, value in options for word in ("-o", f"{name}={value}")),
        "--",
        host.address,
        shlex.join(("exec", python, "-I", "-S", "-c", _BOOTSTRAP)),
    )


def _host_key_options(hosts: Hosts) -> dict[str, str]:
    if hosts.check_host_keys:
        return {"StrictHostKeyChecking": "yes"}
    return {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
    }


def _local(path: str) -> str:
    return str(Path(path).expanduser())


def explain(hosts: Hosts, host: Host, python: str, status: int, said: str) -> str:
    """Why an agent did not start, and what to do.

    Args:
        hosts: How it was tried.
        host: Where.
        python: The interpreter that was to run.
        status: Exit status of ssh: 255 is its own, any other the remote command's.
        said: What came on standard error, and before the agent's first word.
    """
    for pattern, meaning in _MEANINGS.items():
        if re.search(pattern, said, re.IGNORECASE):
            port = hosts.port or 22
            return meaning.format(address=host.address, port=port, user=hosts.user or "the user", python=python)
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return f"no agent could be started over ssh (exit status {status}): {last}"


_MEANINGS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its ssh host key is not the one that is known here: either the machine was set up anew, or somebody else "
        "answers in its place. Compare the key on the machine itself, then remove the old one with "
        "ssh-keygen -R {address} and add the new one"
    ),
    "Host key verification failed|host key is known for": (
        "its ssh host key is not known here. Compare its fingerprint (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub "
        "on the machine) with what ssh-keyscan -p {port} {address} gives, and add that line to ~/.ssh/known_hosts; "
        "or set check_host_keys=False on a network that is yours"
    ),
    "Permission denied|Too many authentication failures": (
        "it does not let {user} in with a key: put the public key into ~/.ssh/authorized_keys there "
        "(ssh-copy-id), or set user or identity_file"
    ),
    "Connection refused": "nothing listens for ssh on port {port}: start the ssh server there, or set port",
    "Connection timed out|Operation timed out|No route to host|Network is unreachable|timed out during banner": (
        "it does not answer on port {port}: is it running, and does a firewall let ssh through?"
    ),
    "Could not resolve hostname": "its name is not known here: correct the address, or add it to the ssh configuration",
    "Bad configuration option|terminating, \\d+ bad configuration|Can't open user config file": (
        "ssh does not take its configuration: see ssh_config and ssh_options of the hosts"
    ),
    "No such file or directory|not found|cannot execute|Unknown command": (
        "there is no {python}: create the same environment at the same path as here, or set python"
    ),
}
