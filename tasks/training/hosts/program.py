"""The agent's program, as one text: the modules that run on a node are sent to it, so they are always ours."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "trainyard.tasks.runtime"
MODULES = (  # in the order of their imports
    "supervisor",
    "watchdog",
    "scratch",
    "ranks",
    *(f"node.{name}" for name in ("protocol", "processes", "network", "facts", "pool", "follow", "job", "agent")),
)

_LOADER = """
import sys, types

def load(modules):
    for name, source in modules:
        parts = name.split(".")
        for count in range(1, len(parts)):
            parent = ".".join(parts[:count])
            if parent not in sys.modules:
                sys.modules[parent] = types.ModuleType(parent)
                sys.modules[parent].__path__ = []
        module = sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[".".join(parts[:-1])], parts[-1], module)
        exec(compile(source, name, "exec"), module.__dict__)

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or newer is needed, and this is %s" % sys.version.split()[0])
"""


@cache
def agent_program(lost_after_s: float) -> bytes:
    """What is sent first over a new connection: the program's length, a newline, the program."""
    modules = [(f"{_PACKAGE}.{name}", module_source(f"{_PACKAGE}.{name}")) for name in MODULES]
    agent = f"{_PACKAGE}.node.agent"
    text = f"{_LOADER}\nload({modules!r})\nsys.modules[{agent!r}].main({lost_after_s!r})\n".encode()
    return f"{len(text)}\n".encode() + text


def module_source(name: str) -> str:
    """A module's source text."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin).read_text(encoding="utf-8")


def own_files() -> dict[str, Path]:
    """The modules of Trainyard that ranks may import, by their path on an import path."""
    spec = find_spec("trainyard")
    assert spec is not None and spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    files = {path.name: path for path in sorted(root.glob("*.py"))}
    for folder in ("flows", "tasks"):  # links, in a checkout
        base = (root / folder).resolve()
        files |= {f"{folder}/{path.relative_to(base).as_posix()}": path for path in sorted(base.rglob("*.py"))}
    return {f"trainyard/{name}": path for name, path in files.items()}
