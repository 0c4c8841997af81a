"""Prefect servers of a test's own, started as ``prefect server start`` does."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx

from tests.integration.postgresql import free_port


@contextmanager
def prefect_server_on(folder, auth=None, **settings):
    """Run a server until the block ends; gives its API's address.

    Args:
        folder: Where its log is written, as ``server.log``.
        auth: ``user:password`` that it asks for.
        settings: Its environment variables, beside this process's.
    """
    address = f"http://127.0.0.1:{(port := free_port())}/api"
    env = {**os.environ, "PREFECT_SERVER_UI_API_URL": address, **settings}
    if auth:
        env["PREFECT_SERVER_API_AUTH_STRING"] = auth
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while not _answers(address, auth):
                assert process.poll() is None and time.monotonic() < until, log_path.read_text()
                time.sleep(0.3)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers(address, auth):
    try:
        return httpx.get(f"{address}/health", auth=tuple(auth.split(":")) if auth else None).status_code == 200
    except httpx.HTTPError:
        return False
