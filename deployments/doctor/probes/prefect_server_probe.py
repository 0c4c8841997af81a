"""Prefect's server: whether its application can be made from the libraries that are installed; nothing is started."""

import json

import fastapi
from prefect.server.api.server import create_app


def main() -> None:
    """Print the libraries' versions."""
    app = create_app(ephemeral=True)
    print(json.dumps({"fastapi": fastapi.__version__, "routes": len(app.routes)}))


if __name__ == "__main__":
    main()
