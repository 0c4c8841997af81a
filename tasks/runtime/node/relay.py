"""Stands for ``ssh`` where ``mpirun`` wants to start a daemon on another node: ``relay.py SOCKET HOST COMMAND ...``.

The request goes over the agent's socket to the pipeline's machine, and from there to that node's agent, which starts
the daemon below itself. So nodes need no ssh keys for each other, and nothing runs on one that its agent does not
know of.
"""

import json
import socket
import sys


def main() -> int:
    """Pass the request on, and wait for the daemon's end."""
    path, host, *command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"host": host, "command": " ".join(command)}  # as ssh joins them
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile("rb").readline()
    return int(answer or b"255")


if __name__ == "__main__":
    sys.exit(main())
