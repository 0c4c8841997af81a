"""A flow run whose worker is gone must not go on alone.

A Prefect worker that is killed with SIGKILL leaves its flow runs' processes. Seen with Prefect 3.8.8: such a run goes
on until it next writes a line to the worker's closed pipe, and for ever where its output is not streamed, while the
server believes it lost and may have started it again elsewhere.
"""

import os
import signal
import threading
import time

POLL_S = 0.5
PATIENCE_S = 12.0
STARTED_BY_A_WORKER = "PREFECT__FLOW_RUN_ID"

_watching: list[threading.Thread] = []


def end_with_worker() -> None:
    """Have this process end when the worker (or runner) that started it does; safe to repeat."""
    if STARTED_BY_A_WORKER in os.environ and not _watching:
        watch = threading.Thread(target=_watch, args=(os.getppid(),), name="trainyard-worker-watch", daemon=True)
        _watching.append(watch)
        watch.start()


def _watch(worker: int) -> None:
    """SIGTERM, as the worker itself would send it; what does not end by it in time is ended."""
    while os.getppid() == worker:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(128 + signal.SIGTERM)
