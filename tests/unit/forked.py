"""Processes that begin with torch imported: forked from one that has it, so that a test pays for its own work only.

A fresh interpreter needs seconds for torch, its exporters and ONNX Runtime before it does anything. Tests whose subject
is not how a process starts take these instead; what runs in them is the same code.
"""

import multiprocessing
import os
import runpy
import socket
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.process import ModelProcess

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.unit.preloaded"])


def run_script(script: Path, folder: Path) -> None:
    """Run a script as ``python script.py`` in a folder would: what it defines is of its ``__main__``."""
    failure = script.with_suffix(".traceback")
    process = _forks.Process(target=_run_script, args=(str(script), str(folder), str(failure)))
    process.start()
    process.join()
    assert process.exitcode == 0, failure.read_text()


def _run_script(script: str, folder: str, failure: str) -> None:
    os.chdir(folder)
    sys.argv = [script]
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException:
        Path(failure).write_text(traceback.format_exc())
        raise


class ForkedModelProcess(ModelProcess):
    """A ``ModelProcess`` whose child is forked, and serves as the real one does."""

    def __init__(self, module: str, source: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._forked = _forks.Process(target=_serve, args=(module, theirs, str(source.resolve())))
            self._forked.start()
        self._connection = Connection(ours.detach())

    def close(self) -> None:
        self._connection.close()
        self._forked.kill()
        self._forked.join()

    def _last_words(self) -> str:
        self._forked.join()
        raise ExportError(f"The forked process ended with {self._forked.exitcode}.")


def _serve(module: str, connection: socket.socket, source: str) -> None:
    sys.argv = [module, str(connection.detach()), source]
    runpy.run_module(module, run_name="__main__")
