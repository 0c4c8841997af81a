"""A node's agent: does what the pipeline's machine asks over one ssh connection, and ends with it.

Everything that a training runs on this node runs below the agent. When the connection closes, or the other side has
been silent for too long, the agent ends it all, and itself.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainyard.tasks.runtime.node import facts, network, processes
from trainyard.tasks.runtime.node.job import NodeJob
from trainyard.tasks.runtime.node.pool import Entry, Pool
from trainyard.tasks.runtime.node.protocol import ALIVE_INTERVAL_S, HELLO, Channel, Frame
from trainyard.tasks.runtime.ranks import ask_for_stacks
from trainyard.tasks.runtime.supervisor import PR_SET_CHILD_SUBREAPER, prctl

LOST_GRACE_S = 3.0
"""Seconds that a training has to end well when nobody is left to tell it to."""


class Agent:
    """Answers requests, one after the other.

    Args:
        channel: To the pipeline's machine.
        lost_after_s: Seconds of silence after which that machine counts as lost.
    """

    def __init__(self, channel: Channel, lost_after_s: float) -> None:
        self._channel = channel
        self._lost_after_s = lost_after_s
        self._requests: queue.Queue[Frame] = queue.Queue(maxsize=32)
        self._heard_at = time.monotonic()
        self._ending = threading.Lock()
        self._pool: Pool | None = None
        self._job: NodeJob | None = None
        self._broken: list[str] = []

    def serve(self) -> None:
        """Answer until the connection ends."""
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._keep_alive, daemon=True).start()
        while True:
            frame = self._requests.get()
            self._answer(frame)

    def leave(self, *, unheard: bool = False) -> None:
        """End everything of the job, then this process.

        Args:
            unheard: Nobody reads what we say; then the ssh server's process for this session would wait for that, too.
        """
        self._ending.acquire()  # never released: whoever comes second waits for the end
        with contextlib.suppress(Exception):
            if self._job is not None:
                self._job.end(LOST_GRACE_S)
                self._job.close()
        with contextlib.suppress(Exception):
            processes.end_all(None, (), 0.0)
            if self._pool is not None:
                self._pool.close()
        if unheard and _is_ssh_session(os.getppid()):
            os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)

    def _read(self) -> None:
        for frame in self._channel.frames():
            self._heard_at = time.monotonic()
            if frame.head.get("op") != "alive":
                self._requests.put(frame)
                self._heard_at = time.monotonic()  # it may have waited here, for us
        self.leave()

    def _keep_alive(self) -> None:
        while True:
            try:
                self._channel.send({"event": "alive"})
            except OSError:
                self.leave()
            if time.monotonic() - self._heard_at > self._lost_after_s and not self._requests.full():
                self.leave(unheard=True)
            time.sleep(ALIVE_INTERVAL_S)

    def _answer(self, frame: Frame) -> None:
        operation = frame.head["op"]
        handle: Callable[..., Any] = getattr(self, f"_op_{operation}")
        arguments = {name: value for name, value in frame.head.items() if name not in ("op", "id")}
        if frame.payload:
            arguments["payload"] = frame.payload
        try:
            answer = {"answer": handle(**arguments)}
        except Exception as error:  # the head, which asked, is told; the agent must live to end what runs
            answer = {"error": f"{operation}: {type(error).__name__}: {error}"}
        if "id" in frame.head:
            with contextlib.suppress(OSError):
                self._channel.send({"event": "answer", "id": frame.head["id"], **answer})
        elif "error" in answer:
            self._broken.append(str(answer["error"]))

    # What can be asked for. Requests without an answer leave what went wrong for ``settle``.

    def _op_identity(self) -> dict[str, Any]:
        return facts.identity()

    def _op_environment(self, python: str, with_devices: bool) -> dict[str, Any]:
        return facts.environment(python, with_devices)

    def _op_space(self, root: str) -> dict[str, Any]:
        return facts.space(Path(root))

    def _op_tokens(self, root: str) -> list[str]:
        return facts.tokens(Path(root))

    def _op_discard_token(self, root: str, token: str) -> None:
        facts.discard_token(Path(root), token)

    def _op_listen(self) -> int:
        return network.listen()

    def _op_unreachable(self, targets: list[tuple[str, int]]) -> list[dict[str, Any]]:
        return network.unreachable([(address, port) for address, port in targets])

    def _op_sweep(self, mark: str) -> int:
        return processes.end_all(mark, (), 0.0)

    def _op_lacking(self, root: str, digests: list[str]) -> dict[str, Any]:
        pool = self._open_pool(root)
        return {"digests": pool.lacking(digests), "free_bytes": facts.free_bytes(Path(root))}

    def _op_chunk(self, sha256: str, payload: bytes) -> None:
        self._the_pool.write(sha256, payload)

    def _op_adopt(self, sha256: str, path: str | None = None) -> None:
        problem = self._the_pool.adopt(sha256, None if path is None else Path(path))
        if problem:
            raise ValueError(problem)

    def _op_settle(self) -> list[str]:
        self._the_pool.settle()
        broken, self._broken = self._broken, []
        return broken

    def _op_build(self, destination: str, entries: list[list[Any]], linked: bool) -> None:
        self._the_pool.build(Path(destination), [Entry(*entry) for entry in entries], linked=linked)

    def _op_link(self, links: list[tuple[str, str]]) -> None:
        for path, target in links:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, path)

    def _op_prepare(self, spec: dict[str, Any]) -> None:
        self._job = NodeJob(spec, self._channel)

    def _op_begin(self, env: dict[str, str]) -> None:
        self._the_job.begin(env)

    def _op_launch(self, argv: list[str], relay: str) -> None:
        self._the_job.launch(argv, relay)

    def _op_daemon(self, number: int, command: str) -> None:
        self._the_job.start_daemon(number, command)

    def _op_daemon_ended(self, number: int, returncode: int) -> None:
        self._the_job.daemon_ended(number, returncode)

    def _op_stacks(self) -> None:
        ask_for_stacks(self._the_job.run / "ranks")

    def _op_end(self, grace_s: float) -> int:
        return self._the_job.end(grace_s)

    def _op_collect(self) -> None:
        self._the_job.collect()

    def _op_clear(self) -> None:
        self._the_job.clear()
        self._job = None

    def _open_pool(self, root: str) -> Pool:
        if self._pool is None:
            self._pool = Pool(Path(root))
        return self._pool

    @property
    def _the_pool(self) -> Pool:
        assert self._pool is not None, "asked for what is lacking first"
        return self._pool

    @property
    def _the_job(self) -> NodeJob:
        assert self._job is not None, "prepared first"
        return self._job


def _is_ssh_session(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    return False


def main(lost_after_s: float) -> None:
    """Serve on standard input and output; what anything else prints goes to standard error."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sink.write(HELLO)
    sink.flush()
    agent = Agent(Channel(sys.stdin.buffer, sink), lost_after_s)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: threading.Thread(target=agent.leave).start())
    agent.serve()
