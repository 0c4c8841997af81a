"""The other end of a ``ModelProcess``: answer requests until the connection closes."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import PipelineError
from trainyard.tasks.models.process import Facts, pack, unpack
from trainyard.tasks.runtime.supervisor import die_with_parent

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Handler = Callable[[Facts, "dict[str, Array]"], tuple[Facts, "dict[str, Array]"]]


def serve(argv: list[str], handlers: Mapping[str, Handler]) -> None:
    """Serve requests one after another.

    Args:
        argv: The connection's file descriptor, and the source directory.
        handlers: By the name of their request; each gets and gives facts (JSON) and arrays.
    """
    die_with_parent(signal.SIGKILL)
    connection, source = Connection(int(argv[0])), Path(argv[1])
    os.chdir(source)
    add_source(source)
    _stand_in_for_azureml()
    while True:
        try:
            facts, arrays = json.loads(connection.recv_bytes()), unpack(connection.recv_bytes())
        except EOFError:
            return
        answer, returned = _answer(handlers[facts.pop("request")], facts, arrays)
        connection.send_bytes(json.dumps(answer).encode())
        connection.send_bytes(pack(returned))


def _stand_in_for_azureml() -> None:
    """As while training: the script's modules import it. By name, for what is logged decides nothing of a model."""
    import_module("trainyard.tasks.runtime.azureml_compat").install()


def add_source(source: Path) -> None:
    """Put a training project on the import path, before everything else, as its entry script had it.

    Which script that was is not known here: every folder that holds modules of its own and is no package counts.
    """
    folders = {path.parent for path in source.rglob("*.py")}
    plain = sorted(folder for folder in folders if not (folder / "__init__.py").exists())
    sys.path[:0] = list(dict.fromkeys(map(str, [source, *plain])))


def _answer(handler: Handler, facts: Facts, arrays: "dict[str, Array]") -> "tuple[Facts, dict[str, Array]]":
    try:
        return handler(facts, arrays)
    except PipelineError as error:
        return {"error": str(error)}, {}
    except Exception as error:  # a factory, a pickle or a forward of the user's own may raise anything
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"}, {}
