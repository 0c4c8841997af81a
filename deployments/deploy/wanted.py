"""What the server should hold: our block types, and what ``prefect.yaml`` and ``resources.yaml`` say."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml
from prefect import Flow
from prefect.utilities.importtools import import_object

from trainyard.deployments.deploy.automations import AutomationRule, WebhookBlock
from trainyard.deployments.deploy.block_types import block_types
from trainyard.deployments.deploy.flows import FlowDeployment
from trainyard.deployments.deploy.pools import Limit, Pool, Queue
from trainyard.deployments.deploy.resource import Facts, Resource
from trainyard.tasks.errors import InvalidInputError

FOLDER = Path(__file__).resolve().parents[1]
TRAIN = "train"
GPU_POOL = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person says beside the files.

    Args:
        project: Directory that relative paths in parameters are relative to.
        gpus: GPUs of the pool ``gpu`` that may train at once; None keeps what is there.
        train_on: Further work pools that can train.
        webhook_url: Called when a pipeline fails.
        lost_after_s: Seconds without a heartbeat after which a run counts as lost.
        retry_after_s: Seconds after which a pipeline that crashed is started again.
    """

    project: Path
    gpus: int | None = None
    train_on: tuple[str, ...] = ()
    webhook_url: str | None = None
    lost_after_s: int = 180
    retry_after_s: int = 30


def wanted_resources(options: Options, folder: Path = FOLDER) -> list[Resource]:
    """Everything, in the order in which it must be created.

    Raises:
        InvalidInputError: The project directory or one of the files is not there.
    """
    if not options.project.is_dir():
        raise InvalidInputError(f"The project directory {str(options.project)!r} does not exist; name it: --project.")
    seconds = {"lost_after_s": options.lost_after_s, "retry_after_s": options.retry_after_s}
    resources = _read(folder / "resources.yaml", **seconds)
    deployments = _read(folder / "prefect.yaml")
    return [
        *block_types(),
        *(item for pool in resources["work_pools"] for item in _pool(pool)),
        *_limits(resources["concurrency_limits"], options),
        *_deployments(deployments, options),
        *_automations(resources["automations"], options),
    ]


def source_version(project: Path) -> str:
    """The commit of the project, with ``-dirty`` where files differ from it; ``unversioned`` outside of git."""
    describe = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=False)
    except OSError:
        return "unversioned"
    return done.stdout.strip() if done.returncode == 0 else "unversioned"


def _read(path: Path, **values: object) -> Facts:
    """A file's content, with values in place of what is written ``$name`` there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}; install trainyard again.") from error
    content: Facts = yaml.safe_load(Template(text).substitute(values) if values else text)
    return content


def _pool(facts: Facts) -> list[Resource]:
    queues = sorted(facts["queues"], key=lambda queue: queue["priority"])
    pool = Pool(facts["name"], {name: facts[name] for name in ("type", "description")})
    return [
        pool,
        *(
            Queue(f"{facts['name']}/{queue['name']}", {name: queue[name] for name in ("priority", "description")})
            for queue in queues
        ),
    ]


def _limits(listed: list[Facts], options: Options) -> list[Resource]:
    """Those of the file, and one for each further pool that can train, which keeps what somebody has set."""
    default = next(facts["limit"] for facts in listed if facts["name"] == GPU_POOL)
    further = [Limit(pool, None, default) for pool in dict.fromkeys(options.train_on) if pool != GPU_POOL]
    return [*(Limit(facts["name"], options.gpus, facts["limit"]) for facts in listed), *further]


def _deployments(content: Facts, options: Options) -> list[Resource]:
    listed = list(content["deployments"])
    training = next(facts for facts in listed if facts["name"] == TRAIN)
    listed += [
        {**training, "name": f"{TRAIN}-{pool}", "work_pool": {**training["work_pool"], "name": pool}}
        for pool in dict.fromkeys(options.train_on)
        if pool != training["work_pool"]["name"]
    ]
    version = source_version(options.project)
    return [_deployment(facts, content["pull"], version, options.project) for facts in listed]


def _deployment(facts: Facts, pull: list[Facts], version: str, project: Path) -> Resource:
    flow: Flow[..., Any] = import_object(facts["entrypoint"])
    pool = facts["work_pool"]
    wanted = {
        "entrypoint": facts["entrypoint"],
        "description": facts["description"],
        "version": version,
        "tags": facts.get("tags", []),
        "parameters": facts.get("parameters", {}),
        "work_pool_name": pool["name"],
        "work_queue_name": pool["work_queue_name"],
        "job_variables": pool.get("job_variables", {}),
        "pull_steps": yaml.safe_load(yaml.safe_dump(facts.get("pull", pull)).replace("{{ $PWD }}", str(project))),
        "schedules": facts.get("schedules", []),
    }
    return FlowDeployment(flow, facts["name"], wanted)


def _automations(listed: list[Facts], options: Options) -> list[Resource]:
    if options.webhook_url is None:
        return [AutomationRule(facts) for facts in listed if "webhook" not in facts]
    names = dict.fromkeys(facts["webhook"] for facts in listed if "webhook" in facts)
    blocks = [WebhookBlock(name, {"url": options.webhook_url}) for name in names]
    return [*blocks, *(AutomationRule(facts) for facts in listed)]
