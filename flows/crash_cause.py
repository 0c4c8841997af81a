"""Why a run crashed, where its own log says so: its state tells no more than how its process ended."""

import logging
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.sorting import LogSort

from trainyard.flows.work_pools import UNREACHABLE

LOOKED_AT = 20
"""Lines, the newest first."""


def last_error(client: SyncPrefectClient, run_id: UUID, known: str) -> str | None:
    """The newest error in a flow run's log; of a traceback, its last line.

    Args:
        client: Of the server.
        run_id: The flow run.
        known: What its state says, which is not worth saying twice.

    Returns:
        The line; None where there is none, or the server does not tell.
    """
    errors = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]), level=LogFilterLevel(ge_=logging.ERROR))
    try:
        found = client.read_logs(errors, limit=LOOKED_AT, sort=LogSort.TIMESTAMP_DESC)
    except UNREACHABLE:
        return None
    lines = (line.message.strip().rpartition("\n")[2] for line in found)
    return next((line for line in lines if line and line not in known), None)
