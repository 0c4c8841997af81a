"""The doctor on the machine that runs the tests, with real MPI, Horovod and Prefect."""

import os
import uuid
from contextlib import suppress

import pytest

from trainyard.deployments.doctor import check_machine, run_doctor
from trainyard.deployments.doctor.allreduce import check_allreduce
from trainyard.deployments.doctor.probing import ask
from trainyard.tasks.errors import StorageNotFoundError


def no_such_bucket(url):
    raise StorageNotFoundError(f"no bucket at {url}")


def test_this_machine_can_train(capsys):
    assert run_doctor() == 0
    out = capsys.readouterr().out
    assert "built for this torch" in out
    assert "2 processes, 16 MB in" in out
    assert out.endswith("This machine can train.\n")


def test_an_unreachable_datastore_fails(capsys):
    assert run_doctor(["s3://nowhere"], probe=no_such_bucket, quick=True) == 1
    out = capsys.readouterr().out
    assert "no bucket at s3://nowhere" in out
    assert "This machine cannot train yet: datastore." in out


def test_a_horovod_that_crashes_is_a_row_and_the_rest_is_still_looked_at(monkeypatch, tmp_path):
    broken = tmp_path / "horovod"
    broken.mkdir()
    (broken / "__init__.py").write_text("import os; os.kill(os.getpid(), 11)")
    (broken / "metadata.json").write_text('{"pytorch": "1.0"}')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    checks = {check.name: check for check in check_machine(quick=True)}
    assert checks["Horovod"].status == "fail"
    assert "built for torch 1.0" in checks["Horovod"].found
    assert "died with SIGSEGV" in checks["Horovod"].found
    assert checks["ONNX Runtime"].status == "ok"


def test_an_allreduce_that_takes_too_long_leaves_no_process(monkeypatch):
    psutil = pytest.importorskip("psutil")
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TRAINYARD_TEST_MARK", mark)  # other tests may run the same command at this time

    def left():
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TRAINYARD_TEST_MARK") == mark and process.pid != os.getpid():
                    yield process

    check = check_allreduce(timeout_s=0.5)
    assert (check.status, "no answer within" in check.found) == ("fail", True)
    assert list(left()) == []


def test_a_prefect_api_that_does_not_answer(monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert "refused" in ask("prefect_probe").facts["problem"]


def test_a_prefect_api_that_answers(prefect_server, monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", prefect_server)
    assert ask("prefect_probe").facts["problem"] == ""
