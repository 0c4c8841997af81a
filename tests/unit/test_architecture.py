"""Dependencies point one way: the rules of CONTRIBUTING, read from the imports."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for folder in ("flows", "tasks", "deployments") for path in (ROOT / folder).rglob("*.py"))
STAGES = ("staging", "training", "metrics", "export", "validation", "registry")
MAY_IMPORT_PREFECT = {"tasks/retries.py", "tasks/blocks.py", "tasks/publishing.py", "tasks/caching/states.py"}
MAY_IMPORT_PREFECT |= {"tasks/gpu_slots.py"}
STARTS_PROCESSES = re.compile(
    r"(subprocess|pty|multiprocessing)|os\.(fork|forkpty|exec\w*|spawn\w*|posix_spawn\w*|system|popen)"
    r"|multiprocessing\.(?!connection\b).*|(concurrent\.futures|futures)\.(ProcessPoolExecutor|process)"
    r"|(\w+\.)*create_subprocess_\w+|(\w+\.)*subprocess_(exec|shell)"
)
"""Imports and calls, by their dotted names; ``multiprocessing.connection`` only talks to a process."""
MAY_START_PROCESSES = {
    "tasks/models/process.py",  # pickles and factories of the training project: never in this process
    "tasks/training/process.py",
    "tasks/training/preflight.py",
    "tasks/runtime/supervisor.py",
    "tasks/runtime/keeper.py",  # forks, so that the rank's parent hears how it ended
    "tasks/runtime/node/processes.py",
    "tasks/training/hosts/connection.py",
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(path):
    """The dotted name of everything that a module calls by one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func)


def imports_package(path, package, **options):
    return any(name == package or name.startswith(f"{package}.") for name in imports(path, **options))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_our_folders_by_their_bare_names(path):
    bare = [name for name in imports(path) if name.split(".")[0] in {"flows", "tasks", "deployments"}]
    assert bare == []


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith("tasks/")], ids=name_of)
def test_tasks_know_neither_flows_nor_deployments(path):
    assert not imports_package(path, "trainyard.flows")
    assert not imports_package(path, "trainyard.deployments")


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_each_other(stage):
    others = [f"trainyard.tasks.{other}" for other in STAGES if other != stage]
    for path in (ROOT / "tasks" / stage).rglob("*.py"):
        assert not [other for other in others if imports_package(path, other)], name_of(path)


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith("tasks/")], ids=name_of)
def test_only_task_modules_and_policies_import_prefect(path):
    if path.name != "task.py" and name_of(path) not in MAY_IMPORT_PREFECT:
        assert not imports_package(path, "prefect")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_one_module_imports_fsspec(path):
    if name_of(path) != "tasks/artifacts/filesystems.py":
        assert not imports_package(path, "fsspec")
        assert not imports_package(path, "s3fs")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_one_module_imports_obstore(path):
    if name_of(path) != "tasks/artifacts/fast_reads.py":
        assert not imports_package(path, "obstore")


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith("tasks/")], ids=name_of)
def test_only_the_launch_and_the_model_process_start_processes(path):
    found = {name for name in (*imports(path), *called(path)) if STARTS_PROCESSES.fullmatch(name)}
    assert bool(found) is (name_of(path) in MAY_START_PROCESSES), found


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess as s",
        "from subprocess import run",
        "import os\nos.fork()",
        "from os import execv",
        "import os\nos.posix_spawnp('x', [], {})",
        "import os\nos.system('x')",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
        "from asyncio import create_subprocess_shell",
        "import multiprocessing\nmultiprocessing.Process()",
        "from multiprocessing import get_context",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
    ],
)
def test_every_way_to_start_a_process_is_known(tmp_path, source):
    (tmp_path / "module.py").write_text(source)
    names = [*imports(tmp_path / "module.py"), *called(tmp_path / "module.py")]
    assert any(STARTS_PROCESSES.fullmatch(name) for name in names), names


@pytest.mark.parametrize("path", sorted((ROOT / "tasks" / "runtime").rglob("*.py")), ids=name_of)
def test_the_runtime_depends_on_no_orchestration(path):
    for package in ("prefect", "pydantic", "fsspec", "trainyard.tasks.specs", "trainyard.tasks.artifacts"):
        assert not imports_package(path, package)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
    for package in ("torch", "onnx", "onnxruntime", "horovod", "matplotlib", "sklearn"):
        assert not imports_package(path, package, top_level_only=True)
