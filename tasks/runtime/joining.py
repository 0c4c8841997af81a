"""Whether the script has joined the other ranks, observed while it runs.

At the script's end it is too late to ask: many call ``destroy_process_group`` or ``hvd.shutdown`` first, and neither
library remembers. So their initialization is observed, from the moment that the script imports them; they are never
imported for it. MPI has been started by this runtime (see ``world``), so that its state says nothing either: what
counts is that the script, or a library of its choice, asked ``mpi4py`` for ``COMM_WORLD``.
"""

import functools
import importlib.abc
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

INDEPENDENT_VARIABLE = "TRAINYARD_INDEPENDENT_RANKS"


class NeverJoinedError(RuntimeError):
    """The script ended without having joined the other ranks."""


class JoinWatch(importlib.abc.MetaPathFinder):
    """Observes how a script joins the other ranks; ``joined`` says whether it has."""

    def __init__(self) -> None:
        self.joined = False
        self._at_import: Mapping[str, Callable[[ModuleType], None]] = {
            "torch.distributed.distributed_c10d": self._watch_torch,
            "torch.distributed.rpc": self._watch_rpc,
            "horovod.common.basics": self._watch_horovod,
        }

    def install(self) -> None:
        """Observe from now on, in this process."""
        sys.meta_path.insert(0, self)
        for name, watch in self._at_import.items():
            if name in sys.modules:
                watch(sys.modules[name])
        if "mpi4py.MPI" in sys.modules:
            self._watch_mpi(sys.modules["mpi4py.MPI"])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, to be observed once it has been executed."""
        if fullname not in self._at_import:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute, watch = spec.loader.exec_module, self._at_import[fullname]

            def execute_and_watch(module: ModuleType) -> None:
                execute(module)
                watch(module)

            vars(spec.loader)["exec_module"] = execute_and_watch  # of this one loader, which stays what it was else
        return spec

    def _watch_torch(self, module: ModuleType) -> None:
        self._observe(module, "init_process_group", lambda *_: module.get_world_size() > 1)

    def _watch_rpc(self, module: ModuleType) -> None:
        if hasattr(module, "init_rpc"):  # not in every build of torch
            self._observe(module, "init_rpc", lambda *_: True)

    def _watch_horovod(self, module: ModuleType) -> None:
        self._observe(module.HorovodBasics, "init", lambda basics, *_: basics.size() > 1)

    def _watch_mpi(self, module: ModuleType) -> None:
        watch = self

        class Watched(ModuleType):
            def __getattribute__(self, name: str) -> Any:
                watch.joined = watch.joined or name == "COMM_WORLD"
                return super().__getattribute__(name)

        module.__class__ = Watched

    def _observe(self, owner: Any, name: str, has_joined: Callable[..., bool]) -> None:
        """Have a function say afterwards, given its positional arguments, whether this rank is among others now."""
        initialize = getattr(owner, name)

        @functools.wraps(initialize)
        def observed(*args: Any, **kwargs: Any) -> Any:
            result = initialize(*args, **kwargs)
            self.joined = self.joined or has_joined(*args)
            return result

        setattr(owner, name, observed)


def check_joined(watch: JoinWatch, world_size: int, environment: Mapping[str, str]) -> None:
    """Refuse the result of ranks that each worked alone.

    Raises:
        NeverJoinedError: The script has not joined the other ranks.
    """
    if world_size == 1 or watch.joined or environment.get(INDEPENDENT_VARIABLE) == "1":
        return
    raise NeverJoinedError(
        f"the script ended well, but never joined the other ranks: each of the {world_size} trained alone. Looked for, "
        "by the script's end: hvd.init() of Horovod, init_process_group() of torch.distributed (with more than one "
        "rank), COMM_WORLD of mpi4py. Initialize one of them in the script, or train with one process; where ranks are "
        f"meant to work alone, say so with environment_variables={{'{INDEPENDENT_VARIABLE}': '1'}}"
    )
