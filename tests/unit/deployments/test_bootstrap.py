import ast
import subprocess

import pytest

from tests.unit.deployments.conftest import PYTHON, ROOT
from trainyard.deployments.environment.bootstrap import unsupported

BOOTSTRAP = ROOT / "deployments" / "environment" / "bootstrap.py"


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_supported_versions(version):
    assert unsupported(version, "linux") == ""


@pytest.mark.parametrize("version", [(3, 9), (3, 6), (3, 14)])
def test_another_version_is_named_with_the_remedy(version):
    message = unsupported(version, "linux")
    assert f"is Python 3.{version[1]}" in message
    assert "Python 3.10 to 3.13 is needed" in message
    assert "make setup PYTHON=" in message


def test_another_system_is_named():
    assert "this is darwin" in unsupported((3, 11), "darwin")


def test_old_interpreters_can_read_the_script():
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 6))


def test_the_supported_versions_are_those_of_pyproject():
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()


def test_setup_needs_nothing_but_the_standard_library():
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import trainyard.deployments.environment.provision;"
        "foreign = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'trainyard'};"
        "print(sorted(name for name in foreign if not name.startswith('__')))"
    )
    answer = subprocess.run([PYTHON, "-S", "-c", program], capture_output=True, text=True, env={})
    assert (answer.stderr, answer.stdout.strip()) == ("", "[]")


def test_a_missing_compiler_is_one_sentence(repository, programs):
    ended = repository.setup(path=programs("make"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("setup: no C++ compiler was found (looked for c++, g++, clang++ on PATH)")
    assert "apt install g++" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (repository.root / ".venv").exists()


def test_all_that_is_missing_is_named_at_once(repository, programs):
    ended = repository.setup(path=programs(), CXX="no-such-compiler -O2")
    assert "looked for CXX=no-such-compiler -O2 on PATH" in ended.stderr
    assert "make was not found" in ended.stderr


def test_an_unreachable_index_is_one_sentence_and_the_next_try_goes_on(repository):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": "/dev/null"}
    ended = repository.setup(**nowhere)
    assert ended.returncode == 1
    assert "cannot reach the Python package index (tried http://127.0.0.1:9/simple)" in ended.stderr
    assert "PIP_INDEX_URL" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    log = repository.root / ".trainyard" / "setup.log"
    assert str(log) in ended.stderr
    assert "no-such-package-of-trainyard" in log.read_text()

    made = (repository.root / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    assert repository.setup(**nowhere).returncode == 1
    assert (repository.root / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made


def test_nothing_is_done_where_nothing_changed(repository):
    program = f"""
import sys; sys.path[:0] = [{str(repository.root)!r}]
from pathlib import Path
from trainyard.deployments.environment.stamp import write_stamp
root = Path({str(repository.root)!r})
(root / ".venv" / "bin").mkdir(parents=True)
(root / ".venv" / "bin" / "python").symlink_to(sys.executable)
write_stamp(root, root / ".venv")
"""
    subprocess.run([PYTHON, "-c", program], check=True)
    ended = repository.setup(path="/nonexistent")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
