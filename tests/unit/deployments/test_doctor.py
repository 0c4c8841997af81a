import sys
import uuid
from io import StringIO

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from tests.processes import describe, marked, wait_for
from trainyard.deployments.doctor import Check, check_machine, datastores, probing, render
from trainyard.deployments.doctor.allreduce import allreduce_command
from trainyard.deployments.doctor.horovod import check_horovod, check_operations, torch_built_for
from trainyard.deployments.doctor.libraries import check_gpu, check_onnxruntime, check_torch
from trainyard.deployments.doctor.mpi import check_mpi4py, check_mpirun, launch_variables
from trainyard.deployments.doctor.probing import Answer, ask, run_probe
from trainyard.deployments.doctor.report import verdict
from trainyard.deployments.doctor.services import check_datastore, check_prefect, check_prefect_server, check_store
from trainyard.tasks.errors import (
    InvalidInputError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)

BROKEN = Answer(failure="ImportError: libmpi.so.40: cannot open shared object file")
TORCH = Answer({"version": "2.13.0+cpu", "cuda": None, "devices": []})
GPU_TORCH = Answer({"version": "2.13.0+cu130", "cuda": "13.0", "devices": ["NVIDIA H200"]})
HOROVOD = Answer({"version": "0.28.1", "mpi": True, "gloo": True, "nccl": 0})


def program(source):
    return [sys.executable, "-c", source]


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("import os; os.kill(os.getpid(), 11)", "died with SIGSEGV"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(7)", "exit code 7"),
        ("print('hello')", "an answer that is not JSON: 'hello\\n'"),
        ("pass", "an answer that is not JSON: ''"),
    ],
    ids=["crash", "import", "exit", "words", "silence"],
)
def test_a_probe_that_fails_is_an_answer(source, failure):
    assert run_probe(program(source), 60.0) == Answer(failure=failure)


@pytest.mark.parametrize(
    "source",
    ["import time; time.sleep(600)", "import signal, time; signal.signal(15, lambda *_: exit(0)); time.sleep(600)"],
    ids=["hangs", "hangs and cleans up"],
)
def test_a_probe_that_hangs_is_an_answer(source):
    assert run_probe(program(source), 1.0) == Answer(failure="no answer within 1 s")


DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its child, too
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
if sys.argv[2] == "ends":
    signal.signal(signal.SIGTERM, lambda *_: exit(0))
time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["ends", "stays"])
def test_a_probe_that_is_ended_leaves_nothing_and_nobody_waits_for_what_holds_its_pipes(ending, monkeypatch):
    """As ``mpirun``'s ranks do, which are in sessions of their own."""
    monkeypatch.setattr(probing, "END_S", 1.0)
    mark = uuid.uuid4().hex
    assert run_probe([*program(DEAF), mark, ending], 5.0) == Answer(failure="no answer within 5 s")
    assert wait_for(lambda: not marked(mark)), describe(marked(mark))


def test_only_the_last_line_is_the_answer():
    assert run_probe(program("print('a banner'); print('{\"a\": 1}')"), 60.0) == Answer({"a": 1})


def test_a_probe_is_a_program_of_the_package():
    assert ask("onnxruntime_probe").facts["version"]


def test_torch():
    assert check_torch(TORCH) == Check("torch", "ok", "2.13.0+cpu (CPU build)")
    assert check_torch(GPU_TORCH).found == "2.13.0+cu130 (CUDA 13.0)"
    assert check_torch(BROKEN).status == "fail"


def test_gpu(tmp_path):
    nowhere = tmp_path / "nvidiactl"
    assert check_gpu(GPU_TORCH, nowhere) == Check("GPU", "ok", "1 visible: NVIDIA H200")
    assert check_gpu(TORCH, nowhere).status == "skip"
    assert check_gpu(BROKEN, nowhere).status == "skip"
    nowhere.touch()
    assert check_gpu(TORCH, nowhere).status == "warn"


@pytest.fixture
def built_for(monkeypatch, tmp_path):
    """Puts a Horovod with this note on the path."""

    def install(note):
        package = tmp_path / "horovod"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
        if note is not None:
            (package / "metadata.json").write_text(note)
        monkeypatch.delitem(sys.modules, "horovod", raising=False)  # an earlier test may have imported the real one
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_horovod_of_this_torch(built_for):
    built_for('{\n"pytorch": "2.13.0+cpu",\n"dummy": "none"\n}')
    fits, operations = check_horovod(TORCH, HOROVOD)
    assert fits == Check("Horovod", "ok", "0.28.1, built for this torch (2.13.0+cpu)")
    assert operations == Check("Horovod operations", "ok", "MPI, Gloo")


@pytest.mark.parametrize("answer", [HOROVOD, BROKEN])
def test_horovod_of_another_torch_fails_even_where_it_imports(built_for, answer):
    built_for('{"pytorch": "2.9.1+cpu"}')
    (check,) = check_horovod(TORCH, answer)
    assert check.status == "fail"
    assert check.found.startswith("built for torch 2.9.1+cpu, and torch 2.13.0+cpu is installed")
    assert "make setup" in check.remedy


def test_horovod_that_does_not_import(built_for):
    built_for('{"pytorch": "2.13.0+cpu"}')
    (check,) = check_horovod(TORCH, BROKEN)
    assert (check.status, "libmpi.so.40" in check.found) == ("fail", True)


@pytest.mark.parametrize(("note", "torch"), [("{}", "no torch at all"), (None, "an unknown torch")])
def test_horovod_without_torch(built_for, note, torch):
    built_for(note)
    assert torch_built_for() == torch


def test_no_horovod(monkeypatch):
    monkeypatch.setattr("trainyard.deployments.doctor.horovod.find_spec", lambda name: None)
    (check,) = check_horovod(TORCH, BROKEN)
    assert (check.status, check.found) == ("fail", "not installed")


@pytest.mark.parametrize(
    ("built", "has_gpu", "status"),
    [
        ({"mpi": True, "gloo": True, "nccl": 22907}, True, "ok"),
        ({"mpi": True, "gloo": True, "nccl": 0}, True, "warn"),
        ({"mpi": True, "gloo": True, "nccl": 0}, False, "ok"),
        ({"mpi": True, "gloo": False, "nccl": 0}, False, "warn"),
        ({"mpi": False, "gloo": True, "nccl": 0}, False, "fail"),
    ],
)
def test_operations(built, has_gpu, status):
    assert check_operations(Answer(built), has_gpu=has_gpu).status == status


@pytest.fixture
def mpirun(monkeypatch, tmp_path):
    """The environment's mpirun, with a program in its place."""
    path = tmp_path / "environment" / "mpirun"
    path.parent.mkdir()
    monkeypatch.setattr("trainyard.deployments.doctor.mpi.environment_mpirun", lambda: path)

    def write(text):
        path.write_text(f"#!/bin/sh\necho '{text}'\n")
        path.chmod(0o755)
        return path

    return write


def test_mpirun(mpirun):
    path = mpirun("mpirun (Open MPI) 5.0.11")
    assert check_mpirun({"PATH": str(path.parent)}) == Check("Open MPI", "ok", f"5.0.11 ({path})")
    assert check_mpirun({"PATH": ""}).status == "ok"


def test_no_mpirun(mpirun, tmp_path):
    assert check_mpirun({"PATH": "/usr/bin"}).status == "fail"


def test_mpirun_of_another_mpi(mpirun):
    mpirun("HYDRA build details: Version: 4.2")
    assert check_mpirun({"PATH": ""}).status == "fail"


def test_another_mpirun_before_it_on_path(mpirun, tmp_path):
    mpirun("mpirun (Open MPI) 5.0.11")
    other = tmp_path / "mpirun"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    check = check_mpirun({"PATH": str(tmp_path)})
    assert (check.status, str(other) in check.found) == ("warn", True)


def test_mpi4py():
    assert check_mpi4py(Answer({"version": "4.1.2", "library": "Open MPI v5.0.11"})).status == "ok"
    assert check_mpi4py(Answer({"version": "4.1.2", "library": "MPICH Version: 4.2"})).status == "fail"
    assert check_mpi4py(BROKEN).status == "fail"


def test_root_is_allowed_where_one_is_root():
    assert launch_variables({"A": "1"}, user_id=1000) == {"A": "1"}
    assert launch_variables({}, user_id=0) == {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def test_the_allreduce_ends_both_ranks_where_one_raises():
    command = allreduce_command()
    assert command[-4:] == ["-m", "mpi4py", "-m", "trainyard.deployments.doctor.probes.allreduce_probe"]
    assert command[command.index("-np") + 1] == "2"


def test_onnxruntime():
    providers = Answer({"version": "1.32.0", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]})
    assert check_onnxruntime(providers).found == "1.32.0: CUDAExecutionProvider, CPUExecutionProvider"
    assert check_onnxruntime(BROKEN).status == "fail"


@pytest.mark.parametrize(
    ("url", "problem", "status", "words"),
    [
        (None, "", "ok", "this machine's own server will be used"),
        ("http://a/api", "", "ok", "http://a/api answers"),
        ("http://a/api", "Connection refused", "fail", "does not answer: Connection refused"),
    ],
)
def test_prefect(url, problem, status, words):
    check = check_prefect(Answer({"version": "3.8.8", "api_url": url, "problem": problem}))
    assert (check.status, words in check.found) == (status, True)


def test_stores_that_overwrite_are_warned_of():
    def refuse(url):
        raise StorageAccessError("wrong credentials")

    assert check_store("s3://a", lambda url: True).status == "ok"
    careless = check_store("s3://a", lambda url: False)
    assert careless.status == "warn"
    assert "one machine only" in careless.remedy
    assert check_store("s3://a", refuse).found == "s3://a: wrong credentials"


def test_datastores():
    def refuse(url):
        raise StorageAccessError("wrong credentials")

    reached = Check("datastore", "ok", "s3://a can be reached", subject="s3://a")
    assert check_datastore("s3://a", lambda url: None) == reached
    assert check_datastore("s3://a", refuse).found == "s3://a: wrong credentials"
    with pytest.raises(ValueError, match="no probe"):
        next(check_machine(["s3://a"]))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StorageAccessError("refused"), "AWS_ACCESS_KEY_ID"),
        (StorageNotFoundError("s3://a is not there"), "create it"),
        (StorageUnavailableError("s3://a did not answer; this is retried."), "AWS_ENDPOINT_URL"),
    ],
)
def test_a_datastore_that_cannot_be_reached_is_named_with_what_to_do(error, words):
    def fail(asked):
        raise error

    check = check_datastore("s3://a", fail)
    assert check.found.count("s3://a") == 1 and "retried" not in check.found
    assert words in check.remedy
    assert check.title == "datastore s3://a"


def test_credentials_in_a_datastores_url_are_said_and_not_shown():
    check = check_datastore("s3://K:SECRET@b", datastores.probe_datastore)
    assert (check.status, "holds a password" in check.found) == ("fail", True)
    assert "SECRET" not in repr(check)


def test_blocks_are_told_from_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for asked in ("block/lab", "lab"):
        assert datastores.block_name(asked) == "lab"
    for asked in ("s3://lab", "data", "./lab", "/lab", "lab/data", "~"):
        assert datastores.block_name(asked) is None


def test_a_block_without_a_server_to_ask(home):
    no_server = temporary_settings(restore_defaults={PREFECT_API_URL})  # another test's may be at work
    with no_server, pytest.raises(InvalidInputError, match="trainyard up"):
        datastores.probe_datastore("block/lab")


def test_a_prefect_server_that_cannot_start_here():
    check = check_prefect_server(Answer(failure="TypeError: Body() got an unexpected keyword argument 'min_items'"))
    assert (check.status, "min_items" in check.found, "fastapi<0.151" in check.remedy) == ("fail", True, True)
    assert check_prefect_server(ask("prefect_server_probe")).status == "ok"


def test_the_table_shows_all_of_it_even_where_it_looks_like_markup():
    out = StringIO()
    checks = [Check("one", "ok", "fine [bold]"), Check("two", "fail", "bad", "do [this]")]
    Console(file=out, width=60).print(render(checks))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "ok    one  fine [bold]",
        "fail  two  bad",
        "           → do [this]",
    ]


def test_the_doctor_itself_imports_nothing_heavy():
    source = (
        "import sys, trainyard.deployments.doctor as d; print([n for n in ('torch', 'prefect', 'horovod', 'mpi4py',"
        " 'onnxruntime') if n in sys.modules])"
    )
    assert run_probe(program(source), 30.0).failure == "" and run_probe(program(source), 30.0).facts == []


def test_the_verdict_names_a_datastore_with_brackets_in_its_path():
    out = StringIO()
    failed = Check("datastore", "fail", "nothing there", subject="s3://data/[/red]")
    Console(file=out, width=200).print(verdict([failed]))
    assert out.getvalue() == "This machine cannot train yet: datastore s3://data/[/red].\n"
