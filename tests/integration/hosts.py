"""Two real hosts on one machine: network namespaces on a bridge, each with its own name, sshd and private /tmp.

The directories of the tests lie below /tmp, so nothing but the Python environment is shared between the hosts, or
with this machine.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainyard import Hosts
from trainyard.tasks.runtime.supervisor import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"ip": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}


def why_not() -> str | None:
    """Why there can be no such hosts here, or None."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    missing = {package for program, package in PROGRAMS.items() if not _which(program)}
    if missing:
        return f"needs the packages {', '.join(sorted(missing))}"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if Path("/tmp").resolve() not in Path(tempfile.gettempdir()).resolve().parents and tempfile.gettempdir() != "/tmp":
        return "needs the tests' directories to be below /tmp, which the hosts have of their own"
    probe = f"tyard{os.getpid()}"
    try:
        _run("ip", "link", "add", probe, "type", "bridge")
        _run("ip", "link", "del", probe)
        _run("unshare", "-n", "-u", "-m", "true")
    except (subprocess.CalledProcessError, OSError) as error:
        return f"may not make network namespaces ({str(getattr(error, 'stderr', '') or error).strip()})"
    return None


@dataclass
class TestHost:
    """One of them."""

    __test__ = False
    number: int
    name: str
    address: str
    sshd: "subprocess.Popen[bytes]"

    def run(self, *argv: str) -> str:
        """Run a program there, not over ssh; gives its output."""
        inside = ("nsenter", f"--target={self.sshd.pid}", "--net", "--uts", "--mount", *argv)
        return _run(*inside)


@dataclass
class TestHosts:
    """All of them."""

    __test__ = False
    hosts: list[TestHost]
    directory: Path
    bridge: str

    def target(self, **changes: object) -> Hosts:
        """The compute target."""
        values = {
            "hosts": [host.address for host in self.hosts],
            "identity_file": str(self.directory / "id"),
            "ssh_options": {"UserKnownHostsFile": str(self.directory / "known_hosts")},
            **changes,
        }
        return Hosts.model_validate(values)


@contextlib.contextmanager
def run_hosts(count: int = 2) -> Iterator[TestHosts]:
    """Make hosts, and remove them."""
    token = f"{os.getpid() % 0x10000:x}{random.randrange(256):02x}"
    network = _free_network()
    bridge = f"ty{token}"
    directory = Path(tempfile.mkdtemp(prefix="trainyard-hosts-", dir="/var/tmp"))
    made = TestHosts([], directory, bridge)
    try:
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "id"))
        shutil.copy(directory / "id.pub", directory / "authorized_keys")
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{network}.254/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for number in range(1, count + 1):
            made.hosts.append(_make_host(f"{network}.{number}", bridge, directory, number))
        _learn_host_keys(made)
        yield made
    finally:
        for host in made.hosts:
            _end(host.sshd)
            _quietly("ip", "link", "del", f"{bridge}v{host.number}")  # else the kernel does, in its own time
        _quietly("ip", "link", "del", bridge)
        shutil.rmtree(directory, ignore_errors=True)


def _make_host(address: str, bridge: str, directory: Path, number: int) -> TestHost:
    """One host. Its namespaces have no names: they are gone when its sshd is, which goes when the tests do."""
    key, config = directory / f"host-{number}", directory / f"sshd-{number}.conf"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    config.write_text(
        f"ListenAddress {address}\nHostKey {key}\nAuthorizedKeysFile {directory}/authorized_keys\nStrictModes no\n"
        "PidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
    )
    name = f"node{number}"
    # a checkout below /tmp, with the Python environment in it, is kept in sight: the shell stands in it
    private_tmp = ("mount -t tmpfs tmpfs /tmp", 'mkdir -p "$4"', 'mount --no-canonicalize --bind . "$4"')
    steps = ('hostname "$1"', *private_tmp, "mkdir -p /run/sshd", "echo", "read go")
    start = 'exec "$2" -D -e -f "$3"'
    with (directory / f"sshd-{number}.log").open("wb") as log:
        sshd = subprocess.Popen(
            [
                *("unshare", "-n", "-u", "-m", "sh", "-c", " && ".join((*steps, start))),
                *("sh", name, str(_which("sshd")), str(config), str(ROOT)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
    host = TestHost(number, name, address, sshd)
    assert sshd.stdin is not None and sshd.stdout is not None
    try:
        assert sshd.stdout.readline(), (directory / f"sshd-{number}.log").read_text()
        here, ip = f"{bridge}v{number}", str(_which("ip"))
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(sshd.pid))
        _run("ip", "link", "set", here, "master", bridge, "up")
        host.run(ip, "addr", "add", f"{address}/24", "dev", "eth0")
        host.run(ip, "link", "set", "eth0", "up")
        host.run(ip, "link", "set", "lo", "up")
        sshd.stdin.write(b"go\n")
        sshd.stdin.flush()
    except BaseException:
        _end(sshd)
        raise
    return host


def _learn_host_keys(made: TestHosts) -> None:
    known = made.directory / "known_hosts"
    for host in made.hosts:
        until = time.monotonic() + 30
        while not (keys := _quietly("ssh-keyscan", "-T", "5", host.address)):
            assert time.monotonic() < until, (made.directory / "sshd-1.log").read_text()
            time.sleep(0.2)
        with known.open("a") as out:
            out.write(keys)


def _free_network() -> str:
    """The first three numbers of a network that this machine has no route to."""
    routes = _run("ip", "-4", "route")
    while True:
        network = f"10.{random.randrange(64, 250)}.{random.randrange(250)}"
        if f"{network}." not in routes:
            return network


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End an sshd, and whatever else is in its network namespace: sessions that nobody told of their end."""
    inside = _processes_in(os.readlink(f"/proc/{process.pid}/ns/net")) if process.poll() is None else []
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    for pid in {process.pid, *inside}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _processes_in(namespace: str) -> list[int]:
    if namespace == os.readlink("/proc/self/ns/net"):
        return []  # it never got as far as a namespace of its own
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns" / "net") == namespace:
                found.append(int(entry.name))
    return found


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*argv: str) -> str:
    program = _which(argv[0]) or argv[0]
    return subprocess.run([program, *argv[1:]], check=True, capture_output=True, text=True).stdout


def _quietly(*argv: str) -> str:
    program = _which(argv[0]) or argv[0]
    return subprocess.run([program, *argv[1:]], check=False, capture_output=True, text=True).stdout
