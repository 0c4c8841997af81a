"""Real pip, on wheels made here: what a layer holds, what it lies on, and what happens when something is wrong."""

import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.wheels import make_wheel, use_wheels
from trainyard import PyTorch
from trainyard.tasks.errors import InvalidInputError, TransientError
from trainyard.tasks.training.packages.layer import STAMP
from trainyard.tasks.training.packages.packages import package_components, prepare, read_asked, resolve

SPAWNS = """\
import multiprocessing, subprocess, sys

def version(queue):
    import helper
    queue.put(helper.__version__)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=version, args=(queue,))
    process.start()
    print(queue.get(timeout=120), flush=True)
    process.join()
    subprocess.run([sys.executable, "-c", "import helper; print(helper.__version__)"], check=True)
"""


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    use_wheels(monkeypatch, tmp_path / "wheels")
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@pytest.fixture
def ask(tmp_path):
    source = tmp_path / "project"
    source.mkdir()
    (source / "train.py").touch()

    def ask(*packages, **changes):
        asked = read_asked(
            PyTorch(source_directory=str(source), entry_script="train.py", pip_packages=packages, **changes)
        )
        assert asked.problems == []
        return asked

    ask.source = source
    return ask


def build(asked, context, anew=False):
    return prepare(asked, resolve(asked, context, anew=anew), context)


def run(packages, *arguments):
    command = [str(packages.python), *arguments]
    environment = packages.environment(os.environ)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


def test_a_layer_lies_on_what_is_installed(wheels, context, ask, tmp_path):
    """Its packages are found first, in every child process; scripts run; torch and MPI are those below."""
    make_wheel(wheels, "helper", "1.0", requires=["deeper>=2"], scripts=["say-hello = helper:hello"])
    make_wheel(wheels, "helper", "1.1", requires=["deeper>=2"], scripts=["say-hello = helper:hello"], modules={
        "helper.py": "__version__ = '1.1'\ndef hello(): print('hello')\n"
    })  # fmt: skip
    make_wheel(wheels, "deeper", "2.0")
    make_wheel(wheels, "iniconfig", "999")  # newer than the installed one
    (ask.source / "requirements.txt").write_text("iniconfig>=900\n")
    packages = build(ask("helper", pip_requirements_file="requirements.txt"), context)
    found = run(packages, "-c", "import iniconfig, helper, deeper; print(iniconfig.__version__, helper.__version__)")
    assert found.split() == ["999", "1.1"]
    below = run(packages, "-c", "import torch, trainyard, sys; print(torch.__file__, sys.prefix, trainyard.__name__)")
    assert below.split()[0].startswith(sys.prefix) and below.split()[1] == str(packages.layer.path)
    script = tmp_path / "spawns.py"
    script.write_text(SPAWNS)
    assert run(packages, str(script)).split() == ["1.1", "1.1"]
    hello = subprocess.run(
        ["say-hello"], env=packages.environment(dict(os.environ)), capture_output=True, text=True, check=True
    )
    assert hello.stdout == "hello\n"


def test_mpi_works_on_a_layer(wheels, context, ask):
    pytest.importorskip("mpi4py")
    make_wheel(wheels, "helper", "1.0")
    packages = build(ask("helper"), context)
    assert run(packages, "-c", "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size())").strip() == "1"


def test_what_is_installed_needs_no_layer(wheels, context, ask):
    packages = build(ask("numpy", "torch"), context)
    assert packages.layer is None and str(packages.python) == sys.executable
    assert not list((context.home / "environments").glob("*/bin"))


def test_an_answer_is_kept_and_needs_no_index(wheels, context, ask, monkeypatch):
    make_wheel(wheels, "helper", "1.0")
    asked = ask("helper")
    lock = resolve(asked, context, anew=False)
    assert package_components(asked, lock) == {"package:helper": "1.0"}
    make_wheel(wheels, "helper", "2.0")
    assert resolve(asked, context, anew=False) == lock
    assert build(asked, context).layer.path.is_dir()
    assert package_components(asked, resolve(asked, context, anew=True)) == {"package:helper": "2.0"}
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    elsewhere = context.model_copy(update={"home": context.home / "another-machine"})
    assert resolve(asked, elsewhere, anew=False).packages[0].version == "2.0"


def test_what_a_package_needs_must_fit_what_is_installed(wheels, context, ask):
    make_wheel(wheels, "old-thing", "1.0", requires=["torch<1.5"])
    with pytest.raises(InvalidInputError) as raised:
        resolve(ask("old-thing"), context, anew=False)
    assert "old-thing 1.0 depends on torch<1.5" in str(raised.value)
    assert "is installed and never replaced" in str(raised.value)


def test_a_package_that_does_not_exist(wheels, context, ask):
    with pytest.raises(InvalidInputError, match="the package index has no no-such-thing"):
        resolve(ask("no-such-thing"), context, anew=False)


def test_an_index_that_does_not_answer_is_worth_another_attempt(context, ask, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(TransientError, match="cannot be reached") as raised:
        resolve(ask("helper"), context, anew=False)
    (log,) = (context.home / "environments").glob("*.log")
    assert "secret" not in str(raised.value) + log.read_text()


@pytest.mark.parametrize("harm", ["killed", "file gone", "file changed", "no interpreter"])
def test_a_layer_that_is_not_whole_is_built_anew(wheels, context, ask, harm):
    make_wheel(wheels, "helper", "1.0")
    layer = build(ask("helper"), context).layer
    (module,) = layer.path.glob("lib/python*/site-packages/helper.py")
    if harm == "killed":
        (layer.path / STAMP).unlink()
        module.unlink()
    elif harm == "file gone":
        module.unlink()
    elif harm == "file changed":
        module.write_text("__version__ = 'changed'\n")
    else:
        layer.python.unlink()
    packages = build(ask("helper"), context)
    assert packages.layer == layer
    assert run(packages, "-c", "import helper; print(helper.__version__)").strip() == "1.0"


def test_a_whole_layer_is_not_built_again(wheels, context, ask):
    make_wheel(wheels, "helper", "1.0")
    layer = build(ask("helper"), context).layer
    built = (layer.path / STAMP).stat().st_mtime_ns
    run(build(ask("helper"), context), "-c", "import helper")  # leaves bytecode
    assert build(ask("helper"), context).layer == layer
    assert (layer.path / STAMP).stat().st_mtime_ns == built


def test_a_package_that_cannot_be_installed_leaves_nothing_that_looks_whole(wheels, context, ask):
    make_wheel(wheels, "helper", "1.0")
    asked = ask("helper")
    lock = resolve(asked, context, anew=False)
    wheel = wheels / "helper-1.0-py3-none-any.whl"
    wheel.rename(wheels / "aside")
    with pytest.raises(InvalidInputError, match=r"the package index has no helper==1\.0"):
        prepare(asked, lock, context)
    (wheels / "aside").rename(wheel)
    assert run(prepare(asked, lock, context), "-c", "import helper; print(1)").strip() == "1"


def test_of_several_that_need_a_layer_one_builds_it(wheels, context, ask, caplog):
    make_wheel(wheels, "helper", "1.0")
    asked = ask("helper")
    lock = resolve(asked, context, anew=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(prepare(asked, lock, context))) for _ in range(3)]
    with caplog.at_level("INFO", logger="trainyard"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert sum("Building the environment layer" in record.message for record in caplog.records) == 1


def test_a_package_that_is_not_the_one_that_was_locked_is_refused(wheels, context, ask):
    make_wheel(wheels, "helper", "1.0")
    asked = ask("helper")
    lock = resolve(asked, context, anew=False)
    make_wheel(wheels, "helper", "1.0", modules={"helper.py": "import os; __version__ = 'another'\n"})
    with pytest.raises(InvalidInputError, match="not the one whose hash"):
        prepare(asked, lock, context)


BACKEND = """\
import os, pathlib, time

def build_wheel(directory, settings=None, metadata=None):
    pathlib.Path(os.environ["BUILD_MARK"]).write_text(str(os.getpid()))
    time.sleep(600)
"""

RESOLVE = """\
import sys
from pathlib import Path
from trainyard import PyTorch
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.training.packages.packages import read_asked, resolve

home = Path(sys.argv[1])
asked = read_asked(PyTorch(source_directory=str(home), entry_script="train.py", pip_packages=("slow",)))
resolve(asked, StageContext(store_url=str(home / "store"), home=home), anew=False)
"""


def test_an_installation_dies_with_the_pipeline(wheels, tmp_path):
    """Also what pip started, and also after a SIGKILL, which nobody can clean up after."""
    with tarfile.open(wheels / "slow-1.0.tar.gz", "w:gz") as archive:
        for name, text in {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "slow"\nversion = "1.0"\n',
            "backend.py": BACKEND,
            "PKG-INFO": "Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n",
        }.items():
            entry = tarfile.TarInfo(f"slow-1.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    mark = tmp_path / "mark"
    environment = {**os.environ, "BUILD_MARK": str(mark)}
    pipeline = subprocess.Popen([sys.executable, "-c", RESOLVE, str(tmp_path / "home")], env=environment)
    try:
        wait_until(lambda: mark.exists() and mark.read_text(), 240)
        builder = int(mark.read_text())
        pipeline.kill()
        pipeline.wait(60)
        wait_until(lambda: not Path(f"/proc/{builder}").exists(), 60)
    finally:
        pipeline.kill()
        pipeline.wait(60)


def wait_until(condition, timeout_s):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
