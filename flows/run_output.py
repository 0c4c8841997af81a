"""The log of a flow run and of the runs that it started, as it comes."""

from datetime import datetime, timedelta
from typing import TextIO
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import Log
from prefect.client.schemas.sorting import LogSort

PAGE = 200
LATE = timedelta(seconds=30)
"""How much later than its time a line may arrive: every process sends its lines in batches."""

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class RunOutput:
    """Prints new lines of a run's log.

    Args:
        run_id: The flow run.
        output: Where to.
    """

    def __init__(self, run_id: UUID, output: TextIO) -> None:
        self._run_id = run_id
        self._output = output
        self._seen: set[UUID] = set()
        self._newest: datetime | None = None

    def show_new(self, client: SyncPrefectClient) -> None:
        """Print what has come since the last call, in the order of time."""
        for line in self._new_lines(client):
            level = LEVELS.get(line.level, str(line.level))
            print(f"{line.timestamp:%H:%M:%S} {level:<7} {line.message}", file=self._output, flush=True)

    def say(self, text: str) -> None:
        """Print a line of our own between them."""
        print(text, file=self._output, flush=True)

    def _new_lines(self, client: SyncPrefectClient) -> list[Log]:
        after = self._newest - LATE if self._newest else None
        wanted = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._run_id, *self._children(client)]),
            timestamp=LogFilterTimestamp(after_=after) if after else None,
        )
        lines: list[Log] = []
        while page := client.read_logs(wanted, limit=PAGE, offset=len(lines), sort=LogSort.TIMESTAMP_ASC):
            lines += page
        new = [line for line in lines if line.id not in self._seen]
        self._seen.update(line.id for line in new)
        self._newest = max((line.timestamp for line in lines), default=self._newest)
        return new

    def _children(self, client: SyncPrefectClient) -> list[UUID]:
        children = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[self._run_id]))
        )
        return [child.id for child in children]
