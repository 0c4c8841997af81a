"""A real PostgreSQL of the tests' own, from the system's packages."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path


def programs():
    """Where initdb and postgres are, or None."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = [folder for folder in folders if (folder / "initdb").exists()]
    on_path = shutil.which("initdb")
    return found[0] if found else Path(on_path).parent if on_path else None


def user():
    """PostgreSQL does not run as root: the system's own user then, or None where there is none."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


def missing():
    """Why there can be no PostgreSQL here; empty where there can."""
    if programs() is None:
        return "PostgreSQL is not installed: apt install postgresql"
    return "" if user() else "PostgreSQL does not run as root, and there is no user 'postgres'"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_postgresql():
    """Gives the URL of an empty database, for SQLAlchemy."""
    folder = Path(tempfile.mkdtemp(prefix="trainyard-postgresql-"))
    owner = user()
    if os.geteuid() == 0:
        shutil.chown(folder, owner)
    as_owner = {"user": owner} if os.geteuid() == 0 else {}
    settings = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **as_owner}
    port, data = free_port(), folder / "data"
    try:
        initdb = [programs() / "initdb", "-D", data, "-U", "trainyard", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, **settings)
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]
        server = subprocess.Popen(
            [programs() / "postgres", "-D", data, "-p", str(port), "-k", folder, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **settings,
        )
        try:
            ready = [programs() / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "30"]
            for _ in range(100):
                if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                    break
            yield f"postgresql+asyncpg://trainyard@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
