"""A node's network: its addresses, and whether it reaches other nodes."""

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SIOCGIFADDR = 0x8915  # netdevice(7)
SIOCGIFNETMASK = 0x891B
CONNECT_TIMEOUT_S = 5.0
LISTEN_S = 60.0


def interfaces() -> list[dict[str, str]]:
    """Name, IPv4 address and network (CIDR) of each interface that has one."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                address, mask = (_ask(probe, request, name) for request in (SIOCGIFADDR, SIOCGIFNETMASK))
                network = ipaddress.ip_network(f"{address}/{mask}", strict=False)
                found.append({"name": name, "address": address, "network": str(network)})
    return found


def _ask(probe: socket.socket, request: int, name: str) -> str:
    answer = fcntl.ioctl(probe.fileno(), request, struct.pack("256s", name.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def ssh_address() -> str | None:
    """The address at which this machine was reached over ssh."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else None


def listen() -> int:
    """Accept connections on a free port for a while, in the background; gives the port."""
    server = socket.create_server(("", 0), backlog=128)
    server.settimeout(LISTEN_S)

    def accept() -> None:
        with server, contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def unreachable(targets: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Those of some addresses and ports that this machine cannot connect to, and why."""

    def connect(target: tuple[str, int]) -> dict[str, Any] | None:
        try:
            socket.create_connection(target, timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            return {"address": target[0], "why": error.strerror or str(error)}
        return None

    with ThreadPoolExecutor(max_workers=32) as workers:
        return [problem for problem in workers.map(connect, targets) if problem]
