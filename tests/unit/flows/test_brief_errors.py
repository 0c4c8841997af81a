"""What the terminal shows of an error, through Prefect's own loggers and handlers."""

import io
import logging

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import PrefectConsoleHandler

from trainyard.flows.brief_errors import shorten_errors
from trainyard.tasks.errors import ScriptDefectError

pytestmark = pytest.mark.filterwarnings("ignore:Logger 'prefect.* attempted to send logs to the API")

MESSAGE = "Rank 0 failed first: it 'said'\nIts last lines:\n  too much"
PLAIN = "Rank 0 failed first"


@pytest.fixture
def terminal():
    """The terminal's handler, on the root logger as Prefect has it; what it wrote."""
    written = io.StringIO()
    handler = PrefectConsoleHandler(stream=written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    shorten_errors()
    shorten_errors()
    yield written
    logging.getLogger().removeHandler(handler)


def fail(error, logger):
    """As Prefect 3.8's engines log it."""
    try:
        raise error
    except Exception as raised:
        logger.error(f"Task run failed with exception: {raised!r}", exc_info=True)
        logger.exception("Encountered exception during execution: %r", raised)
        state = f"encountered an exception {type(raised).__name__}: {raised}"
        logger.error(f"Finished in state Failed({f'Task run {state}'!r})")
        logger.info(f"Finished in state Failed({f'Flow run {state}'!r})")


@pytest.mark.parametrize("message", [MESSAGE, PLAIN])
def test_an_error_of_ours_is_named_and_its_message_left_to_the_caller(terminal, caplog, message):
    caplog.set_level(logging.INFO, logger="prefect.task_runs")
    fail(ScriptDefectError(message), logging.getLogger("prefect.task_runs"))
    assert terminal.getvalue().splitlines() == [
        "ERROR Finished in state Failed: ScriptDefectError",
        "INFO Finished in state Failed: ScriptDefectError",
    ]
    assert len(caplog.records) == 4, "other handlers have all of it"
    assert message in caplog.text


def test_an_error_of_the_prefect_server_is_left_to_the_caller(terminal):
    request = httpx.Request("POST", "http://127.0.0.1:9/api/flow_runs/1/set_state")
    answer = httpx.Response(500, request=request, json={"exception_message": "Internal Server Error"})
    refused = httpx.HTTPStatusError("500 Internal Server Error", request=request, response=answer)
    try:
        raise PrefectHTTPStatusError.from_httpx_error(refused)
    except PrefectHTTPStatusError as error:
        logging.getLogger("prefect.flow_runs").exception("Encountered exception during execution: %r", error)
    assert terminal.getvalue() == ""


def test_any_other_error_is_shown_as_prefect_does(terminal):
    fail(ValueError(MESSAGE), logging.getLogger("prefect.flow_runs"))
    assert terminal.getvalue().count("Traceback") == 2
    assert terminal.getvalue().count("it 'said'") >= 4


def test_what_is_not_about_a_run_is_left_alone(terminal):
    fail(ScriptDefectError(MESSAGE), logging.getLogger("somebody.else"))
    assert terminal.getvalue().count("Traceback") == 2


def test_a_retry_says_what_the_attempt_died_of(terminal):
    message = "Task run failed with %s: %r - Retry %s/%s will start %s"
    logger = logging.getLogger("prefect.task_runs")
    logger.warning(message, "exception", ScriptDefectError("attempt one"), 1, 2, "immediately")
    assert "attempt one" in terminal.getvalue()


def test_prefects_debug_level_shows_everything(terminal):
    prefect = logging.getLogger("prefect")
    before = prefect.level
    prefect.setLevel(logging.DEBUG)
    try:
        fail(ScriptDefectError(MESSAGE), logging.getLogger("prefect.task_runs"))
    finally:
        prefect.setLevel(before)
    assert terminal.getvalue().count("Traceback") == 2
