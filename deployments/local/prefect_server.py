"""This machine's Prefect server: ``python -m trainyard.deployments.local.prefect_server DESCRIPTOR``.

The descriptor is that of a socket that listened before this process was started, so that nobody else can take its port
meanwhile. uvicorn's own ``--fd`` is for sockets of another family (AF_UNIX).
"""

import socket
import sys

import uvicorn


def main() -> None:
    """Serve until a signal comes."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, lifespan="on", log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
