"""What ``trainyard up`` starts, for tests: a server and two workers of their own, and callers against them."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import are_gone, command_of

ROOT = Path(__file__).resolve().parents[2]
LOST_AFTER_S = "150"
"""Less than the default, because a test waits for it; five heartbeats of a deployed run."""


# Runs the pipeline on an estimator; its result, or its error, is the last line.
CALLER = """
import json, sys
from trainyard import PyTorch, errors, training_pipeline
arguments = json.loads(sys.argv[2])
try:
    result = training_pipeline(PyTorch.model_validate_json(sys.argv[1]), export=None, **arguments)
except errors.PipelineError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(result.model_dump_json())
"""


@dataclass(frozen=True)
class Yard:
    """A running yard.

    Args:
        home: The Trainyard home of its server and workers.
        store: A store that workers and callers share.
    """

    home: Path
    store: str

    def environment(self, **changes):
        settings = {"TRAINYARD_HOME": str(self.home), "TRAINYARD_STORE": self.store, "TRAINYARD_SERVER_PORT": "14200"}
        settings["TRAINYARD_LOST_AFTER_S"] = LOST_AFTER_S
        return {**os.environ, **settings, **changes}

    @property
    def api_url(self):
        return json.loads((self.home / "services" / "server.json").read_text())["address"]

    def trainyard(self, *arguments, check=0, cwd=ROOT, **changes):
        command = [sys.executable, "-m", "trainyard", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment(**changes), capture_output=True, text=True, timeout=300, cwd=cwd
        )
        assert done.returncode == check, done.stdout + done.stderr
        return done

    def begin(self, *arguments):
        command = [sys.executable, "-m", "trainyard", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment(), stdout=pipe, stderr=pipe, text=True, cwd=ROOT)

    def start(self, estimator, home, variables=None, **arguments):
        """A caller on another machine, as it were: with a home, and environment variables, of its own."""
        env = self.environment(PREFECT_API_URL=self.api_url, TRAINYARD_HOME=str(home), **(variables or {}))
        command = [sys.executable, "-c", CALLER, estimator.model_dump_json(), json.dumps(arguments)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, estimator, home, **arguments):
        output, log = self.start(estimator, home, **arguments).communicate(timeout=240)
        assert output, log
        return json.loads(output.splitlines()[-1])

    def service(self, name):
        """The process of a service and all below it."""
        record = json.loads((self.home / "services" / f"{name}.json").read_text())
        root = psutil.Process(record["pid"])
        return [root, *root.children(recursive=True)]

    @contextmanager
    def worker(self, pool, home):
        """A worker on another machine, as it were."""
        env = self.environment(
            PREFECT_API_URL=self.api_url,
            PREFECT_HOME=str(home / "prefect"),
            PREFECT_WORKER_QUERY_SECONDS="2",
            TRAINYARD_HOME=str(home),
        )
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", f"{pool}-{home.name}"]
        home.mkdir(parents=True, exist_ok=True)
        with (home / "worker.log").open("wb") as log:
            process = psutil.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home)
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
            process.wait(timeout=60)

    def ranks(self):
        """Training processes below the gpu worker."""
        return [process for process in self.service("worker-gpu") if "trainyard.tasks.runtime" in command_of(process)]

    def client(self):
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.api_url)


def runs_below(yard, run_id):
    """The flow runs that a run started, oldest first."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    parent = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    with yard.client() as client:
        return sorted(client.read_flow_runs(flow_run_filter=parent), key=lambda run: run.created)


@contextmanager
def run_yard(folder):
    yard = Yard(home=folder / "home", store=f"file://{folder}/store")
    try:
        at_once = [yard.begin("up") for _ in range(2)]  # of two that start at once, one starts a server
        logs = [process.communicate(timeout=300) for process in at_once]
        assert [process.returncode for process in at_once] == [0, 0], logs
        yield yard
    finally:
        started = [path.stem for path in (yard.home / "services").glob("*.json")]
        families = [yard.service(name) for name in started]
        yard.trainyard("down")
        assert are_gone([process for family in families for process in family])
