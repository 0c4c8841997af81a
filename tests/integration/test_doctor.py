"""The doctor on the machine that runs the tests, with real MPI, Horovod and Prefect."""

import os
import subprocess
import uuid

from tests.processes import marked, wait_for
from trainyard.deployments.doctor import check_machine, probing, run_doctor
from trainyard.deployments.doctor.allreduce import NUM_RANKS, check_allreduce
from trainyard.deployments.doctor.datastores import probe_datastore
from trainyard.deployments.doctor.probing import ask
from trainyard.deployments.doctor.services import check_datastore
from trainyard.tasks.blocks import DatastoreBlock
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
    assert "This machine cannot train yet: datastore s3://nowhere." in out


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


def test_an_allreduce_that_takes_too_long_leaves_no_process(monkeypatch, tmp_path):
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TRAINYARD_TEST_MARK", mark)  # other tests may run the same command at this time
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    met = []

    class UntilTheRanksAreThere(subprocess.Popen):
        """The time is over once both are, however long that takes."""

        def communicate(self, *arguments, timeout=None):
            if not met:
                assert wait_for(lambda: len(marked(mark)) >= 1 + NUM_RANKS, 60)
                met.extend(marked(mark))
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().communicate(*arguments, timeout=timeout)

    monkeypatch.setattr(probing.subprocess, "Popen", UntilTheRanksAreThere)
    check = check_allreduce()
    assert (check.status, "no answer within" in check.found) == ("fail", True)
    assert met
    assert marked(mark) == []


def test_a_prefect_api_that_does_not_answer(monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert "refused" in ask("prefect_probe").facts["problem"]


def test_a_prefect_server_that_a_library_breaks(monkeypatch, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise TypeError('Body() got an unexpected keyword argument')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    checks = {check.name: check for check in check_machine(quick=True)}
    assert checks["Prefect"].status == "ok"
    assert (checks["Prefect server"].status, "Body()" in checks["Prefect server"].found) == ("fail", True)


def test_a_datastore_in_a_block(prefect_server, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", prefect_server)
    (tmp_path / "x.npy").touch()
    DatastoreBlock(url=str(tmp_path)).save("doctors", overwrite=True)
    assert check_datastore("block/doctors", probe_datastore).status == "ok"
    missing = check_datastore("nobodys", probe_datastore)
    assert (missing.status, "no Prefect block 'nobodys'" in missing.found) == ("fail", True)


def test_a_prefect_api_that_answers(prefect_server, monkeypatch):
    monkeypatch.setitem(os.environ, "PREFECT_API_URL", prefect_server)
    assert ask("prefect_probe").facts["problem"] == ""
