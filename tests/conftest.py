"""What the tests share: a Prefect server, an S3 server, a small training project and its data."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

PROJECTS = Path(__file__).parent / "projects"


def pytest_configure(config):
    """Keep the person's own home, Prefect profile and credentials out of the tests.

    Here and not in a fixture: Prefect reads its settings when it is imported. And where a shell runs the tests in the
    background, they begin with SIGINT ignored, and so would every process whose Ctrl-C they test.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(("TRAINYARD_", "AWS_", "PREFECT_"))]:
        del os.environ[name]
    root = Path(tempfile.mkdtemp(prefix="trainyard-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(root, ignore_errors=True))
    os.environ.update(
        TRAINYARD_HOME=str(root / "home"),
        PREFECT_HOME=str(root / "prefect"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
        AWS_EC2_METADATA_DISABLED="true",
    )


@pytest.hookimpl(tryfirst=True)  # before the one that reads the groups
def pytest_collection_modifyitems(items):
    """Where tests are shared out among workers (``make test``), what is costly to have is had by one of them."""
    for item in items:
        for fixture in ("yard", "two_hosts", "two_ranks", "plain", "first_run"):
            if fixture in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(fixture))


def pytest_collection_finish(session):
    """Groups that are not obeyed cost more than time: several servers and pairs of hosts get in each other's way."""
    in_groups = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in in_groups):
        raise pytest.UsageError("pytest-xdist does not know the groups of these tests: install the locked versions")


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory):
    """Prefect's database with its tables and nothing in them, to be copied: a server takes six seconds to make them."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    database = folder / "prefect-tables" / "prefect.db"
    with FileLock(folder / "prefect-tables.lock"):  # one of the workers makes it, and the others wait
        if not database.exists():
            making = folder / "prefect-tables-unfinished"
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env={**os.environ, "PREFECT_HOME": str(making)}, check=True, capture_output=True)
            making.rename(database.parent)
    return database


@pytest.fixture(scope="session")
def prefect_home(prefect_database):
    """Makes a home for Prefect (``PREFECT_HOME``) in which a server finds its tables; gives its path."""

    def make(path):
        path.mkdir(parents=True)
        shutil.copy(prefect_database, path)
        return path

    return make


@pytest.fixture(scope="session")
def prefect_server(prefect_database, tmp_path_factory):
    """A real Prefect server on a database of its own, for the whole session; gives its API's URL."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL
    from prefect.testing import utilities

    folder = tmp_path_factory.mktemp("prefect-server")
    shutil.copy(prefect_database, folder / "prefect-test.db")  # where the harness has it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        harness = utilities.prefect_test_harness(server_startup_timeout=120)
        with harness:
            # One worker sends all events of a process to the server that is configured when it begins. Begun by a test
            # that goes through a proxy, it would lose those of the tests after it: task runs that no server knows.
            EventsWorker.drain_all(timeout=10)
            EventsWorker.instance()
            yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server; see ``tests/integration/s3_server.py``."""
    from tests.integration.s3_server import run_s3_server

    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def two_hosts():
    """Two hosts with an sshd each; see ``tests/integration/hosts.py``."""
    from tests.integration.hosts import run_hosts, why_not

    reason = why_not()
    if reason is not None:
        pytest.skip(f"no two hosts here: {reason}")
    with run_hosts() as hosts:
        yield hosts


def write_points(directory, num_points=40, seed=1):
    """Two classes of points in the plane, apart from each other."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_points) % 2
    points = generator.normal(size=(num_points, 2)).astype(np.float32) + 4 * labels[:, None].astype(np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "points.npy", points)
    np.save(directory / "labels.npy", labels.astype(np.int64))


@pytest.fixture
def points(tmp_path):
    """A directory with a small dataset."""
    write_points(tmp_path / "points")
    return tmp_path / "points"


@pytest.fixture
def linear_project(tmp_path):
    """A copy of the small training project, to be changed at will."""
    return Path(shutil.copytree(PROJECTS / "linear", tmp_path / "linear"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty Trainyard home of the test's own."""
    monkeypatch.setenv("TRAINYARD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def context(tmp_path):
    """A store and a home of the test's own, with nothing in them yet."""
    from trainyard.tasks.caching.stage import StageContext

    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 40 MiB of its own."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)
