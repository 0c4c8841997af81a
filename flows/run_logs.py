"""Show the stages' logs where Prefect shows its own: in the terminal and on the run's page."""

import logging

from prefect.context import FlowRunContext, TaskRunContext


class _RunPageHandler(logging.Handler):
    """Hands records to the handlers of Prefect's run loggers, as long as there is a run that they belong to."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; outside a run there is no page to show it on."""
        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            return
        for handler in logging.getLogger("prefect.extra").handlers:
            handler.handle(record)


def show_stage_logs() -> None:
    """Show what the ``trainyard`` loggers say during a run on the run's page; safe to repeat.

    Like ``PREFECT_LOGGING_EXTRA_LOGGERS=trainyard``, without asking every user to set it.
    """
    logger = logging.getLogger("trainyard")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _RunPageHandler) for handler in logger.handlers):
        logger.addHandler(_RunPageHandler())
