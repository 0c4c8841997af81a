"""What Prefect shows of a stage: a cached result ends in the state ``Cached``, as Prefect's own hits do."""

from prefect.client.schemas.objects import State
from prefect.runtime import task_run
from prefect.states import Completed

from trainyard.tasks.caching.records import Product
from trainyard.tasks.caching.stage import StageResult


def as_state(result: StageResult[Product]) -> "State[StageResult[Product]]":
    """The final state of a stage's task run, with the result as its data."""
    name = "Cached" if result.status == "cached" else "Completed"
    message = {
        "cached": f"Verified result of an earlier run (key {(result.cache_key or '')[:12]})",
        "ran": f"Made {result.num_bytes:,} bytes (key {(result.cache_key or 'none')[:12]})",
    }[result.status]
    return Completed(name=name, message=message, data=result.model_copy(update={"attempts": task_run.run_count or 1}))
