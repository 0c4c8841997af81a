"""A failed run's error is said once in the terminal: by whoever called the pipeline, when it ends.

Prefect writes the error of a task, and again that of its flow, each with a traceback through its engine and ours, and
once more in both final states: six times the same message, of which the training script's traceback is a part. For
errors of our own tree, whose messages say it all, the terminal is spared these. The run's page and the logs on the
server keep everything, and so does the terminal with ``PREFECT_LOGGING_LEVEL=DEBUG``. Likewise where the Prefect server
answers with an error, for example because its disk is full: the traceback would be of Prefect's engine alone.
"""

import logging
import re

from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import PrefectConsoleHandler

from trainyard.tasks import errors
from trainyard.tasks.errors import PipelineError

SAID_AT_THE_END = (PipelineError, PrefectHTTPStatusError)
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_FINAL_STATE = re.compile(r"(Finished in state \w+)\(['\"]\w+ run encountered an exception:? (\w+)\b.*", re.DOTALL)


class _Brief(logging.Filter):
    """Keeps our errors' messages out of what Prefect says on a terminal.

    Args:
        handler: What writes to the terminal.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown as it is; of a final state, show the name and the error's type instead."""
        if record.name not in RUN_LOGGERS or logging.getLogger("prefect").isEnabledFor(logging.DEBUG):
            return True
        if record.exc_info and isinstance(record.exc_info[1], SAID_AT_THE_END):
            return False
        state = _FINAL_STATE.fullmatch(record.getMessage())
        if state is None or not _is_ours(state[2]):
            return True
        brief = logging.makeLogRecord({**vars(record), "msg": f"{state[1]}: {state[2]}", "args": None})
        self._handler.handle(brief)
        return False


def shorten_errors() -> None:
    """Have the terminal say our errors once; safe to repeat."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and not any(isinstance(f, _Brief) for f in handler.filters):
            handler.addFilter(_Brief(handler))


def _is_ours(name: str) -> bool:
    found = getattr(errors, name, None)
    return isinstance(found, type) and issubclass(found, PipelineError)
