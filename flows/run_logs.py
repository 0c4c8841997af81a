"""Show the stages' logs where Prefect shows its own: in the terminal and on the run's page."""

import logging


def show_stage_logs() -> None:
    """Give the ``trainyard`` logger the handlers of Prefect's run loggers; safe to repeat.

    The same as ``PREFECT_LOGGING_EXTRA_LOGGERS=trainyard``, without asking every user to set it.
    """
    logger = logging.getLogger("trainyard")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    for handler in logging.getLogger("prefect.extra").handlers:
        if handler not in logger.handlers:
            logger.addHandler(handler)
