"""``trainyard up``: a server, the deployments and workers, whatever of them is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainyard.deployments.deploy.command import always, deploy
from trainyard.deployments.deploy.flows import FlowDeployment
from trainyard.deployments.deploy.plan import Change
from trainyard.deployments.deploy.wanted import Options
from trainyard.deployments.local.background import all_recorded
from trainyard.deployments.local.connection import Connection, configured_api, connect, is_same_server
from trainyard.deployments.local.server import one_at_a_time, own_address, services_folder
from trainyard.deployments.local.workers import ensure_workers
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings

POOLS = ("cpu", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """How far a person lets ``trainyard up`` go.

    Args:
        confirm: Asks.
        yes: Do not ask.
        on_configured_server: Also a server that is not this machine's own.
    """

    confirm: Callable[[str], bool]
    yes: bool = False
    on_configured_server: bool = False


def bring_up(settings: Settings, say: Callable[[str], None], consent: Consent) -> Connection:
    """Start what does not run yet, and wait until all of it is healthy.

    Args:
        settings: This machine's.
        say: Tells the person what happens.
        consent: What may be changed.

    Raises:
        InvalidInputError: It would change what others may use, and nobody said that it may.
        PrefectUnavailableError: Something does not come up.
    """
    with one_at_a_time(services_folder(settings.home)):
        _refuse_another_server(settings, consent)
        return _bring_up(settings, say, consent)


def _bring_up(settings: Settings, say: Callable[[str], None], consent: Consent) -> Connection:
    connection = connect(settings, say)
    say(f"server: {connection.shown}{' (started)' if connection.was_started else ''}")
    asks = _moves_a_deployment if connection.is_local else always
    done = deploy(
        settings,
        Options(project=Path.cwd()),
        yes=consent.yes,
        dry_run=False,
        confirm=consent.confirm,
        asks=asks,
        unwanted="ignore",
    )
    if not done:
        say("The deployments stay as they were.")
    before = {process.pid for process in all_recorded(services_folder(settings.home))}
    for worker in ensure_workers(POOLS, connection, settings.home):
        say(f"{worker.name}: process {worker.pid}{'' if worker.pid in before else ' (started)'}")
    return connection


def _refuse_another_server(settings: Settings, consent: Consent) -> None:
    """A team's server would get this folder's deployments, and its runs would come to workers here."""
    configured = configured_api()
    if consent.on_configured_server:
        if configured is None:
            raise InvalidInputError("--on-configured-server: none is configured; set PREFECT_API_URL, or leave it out.")
        return
    if configured is not None and not is_same_server(configured, own_address(settings.home)):
        raise InvalidInputError(
            f"PREFECT_API_URL, or the active Prefect profile, names the server {configured}, and 'trainyard up' starts "
            "one of this machine's own. For that one: unset PREFECT_API_URL (or 'prefect profile use ephemeral'). For "
            "the configured one: 'trainyard deploy' changes its deployments, and 'trainyard up --on-configured-server' "
            "also starts workers here that take its runs."
        )


def _moves_a_deployment(change: Change) -> bool:
    """Whether runs of a deployment that exists would work in another folder, or otherwise be set up anew."""
    if change.found is None or not isinstance(change.resource, FlowDeployment):
        return False
    return any(change.found[name] != change.resource.wanted[name] for name in ("pull_steps", "entrypoint"))
