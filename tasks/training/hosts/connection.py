"""One ssh connection to one node's agent."""

import contextlib
import itertools
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from trainyard.tasks.runtime.node.protocol import ALIVE_INTERVAL_S, HELLO, Channel, Frame
from trainyard.tasks.specs.hosts import Host, Hosts
from trainyard.tasks.training.hosts.program import agent_program
from trainyard.tasks.training.hosts.ssh import CONNECT_TIMEOUT_S, explain, ssh_command

START_TIMEOUT_S = CONNECT_TIMEOUT_S + 45.0
CLOSE_TIMEOUT_S = 5.0
MAX_CONNECTING = 64
Answer = TypeVar("Answer")


class HostProblem(Exception):
    """Something is wrong with one host.

    Args:
        address: Which one.
        problem: What, and what to do.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"host {address}: {problem}")
        self.address = address
        self.problem = problem


class Connection:
    """A running agent.

    Args:
        hosts: How to connect.
        host: To what.
        python: The interpreter there.
        on_event: Called, from a thread, with every frame that answers no request, and with None when the connection
            has ended.

    Raises:
        HostProblem: No agent could be started; says why.
    """

    def __init__(
        self, hosts: Hosts, host: Host, python: str, on_event: Callable[[Frame | None], None] = lambda frame: None
    ) -> None:
        self.host = host
        self._lost_after_s = hosts.lost_after_s
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._said: deque[str] = deque(maxlen=40)
        self._closed = False
        self._heard_at = time.monotonic()
        self._process = self._start(hosts, python)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def ask(self, operation: str, **arguments: Any) -> Any:
        """Have the agent do something, and wait for its answer.

        Raises:
            HostProblem: It could not be done, or the connection is gone.
        """
        answer: Future[Any] = Future()
        number = next(self._numbers)
        self._answers[number] = answer
        if self._closed:
            self._fail_all()
        self.tell(operation, id=number, **arguments)
        return answer.result()

    def tell(self, operation: str, payload: bytes = b"", **arguments: Any) -> None:
        """Have the agent do something without an answer."""
        try:
            self._channel.send({"op": operation, **arguments}, payload)
        except (OSError, ValueError) as error:
            raise HostProblem(self.host.address, self.why_lost()) from error

    def close(self) -> None:
        """End the agent, and with it everything that runs below it."""
        self._closed = True
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, hosts: Hosts, python: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            ssh_command(hosts, self.host, python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: the agents are told how to end
        )
        threading.Thread(target=self._listen_to_ssh, args=(process,), daemon=True).start()
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        try:
            self._wait_for_hello(process, agent_program(hosts.lost_after_s))
        except OSError as error:  # it went away while it was being told the program
            status = process.wait()
            time.sleep(0.1)  # for its last words
            raise HostProblem(
                self.host.address, explain(hosts, self.host, python, status, "\n".join(self._said))
            ) from error
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        return process

    def _wait_for_hello(self, process: "subprocess.Popen[bytes]", program: bytes) -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(program)
        process.stdin.flush()
        while not (line := process.stdout.readline()).endswith(HELLO):
            if not line:
                raise BrokenPipeError("no agent")
            self._said.append(line.decode(errors="replace").rstrip())  # a login shell's greeting

    def _listen_to_ssh(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())

    def _read(self) -> None:
        try:
            for frame in self._channel.frames():
                self._heard_at = time.monotonic()
                self._take(frame)
        except (OSError, ValueError) as error:  # this disk is full, or a node says what it must not
            self._said.append(f"what it sent could not be taken: {error}")
        self._closed = True
        self._fail_all()
        self._on_event(None)

    def _take(self, frame: Frame) -> None:
        event = frame.head.get("event")
        if event == "alive":
            return
        if event != "answer":
            self._on_event(frame)
            return
        waiting = self._answers.pop(frame.head["id"], None)
        if waiting is None:
            return
        if "error" in frame.head:
            waiting.set_exception(HostProblem(self.host.address, str(frame.head["error"])))
        else:
            waiting.set_result(frame.head["answer"])

    def _fail_all(self) -> None:
        for number in list(self._answers):
            waiting = self._answers.pop(number, None)
            if waiting is not None:
                waiting.set_exception(HostProblem(self.host.address, self.why_lost()))

    def why_lost(self) -> str:
        """What is known of a connection that has ended."""
        status = self._process.poll()
        last = f": {self._said[-1]}" if self._said else ""
        return f"the connection to it was lost (ssh: {'still running' if status is None else status}{last})"

    def _keep_alive(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError, ValueError):
                self._channel.send({"op": "alive"})
            if time.monotonic() - self._heard_at > self._lost_after_s:
                self._said.append(f"not heard of for {self._lost_after_s:g} s")
                self._process.kill()
                return
            time.sleep(ALIVE_INTERVAL_S)


def on_all(items: Iterable[Any], do: Callable[[Any], Answer]) -> list["Answer | HostProblem"]:
    """Do something with every host at the same time; a host's problem stands in the place of its answer."""

    def guarded(item: Any) -> "Answer | HostProblem":
        try:
            return do(item)
        except HostProblem as problem:
            return problem

    everything = list(items)
    with ThreadPoolExecutor(max_workers=min(MAX_CONNECTING, max(1, len(everything)))) as workers:
        return list(workers.map(guarded, everything))
