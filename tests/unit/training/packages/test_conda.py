import os
import sys
from pathlib import Path

import pytest

from trainyard.tasks.errors import InvalidInputError, TransientError
from trainyard.tasks.training.packages.conda import (
    CondaEnvironment,
    CondaRequest,
    _accepts,
    build_conda,
    conda_command,
    read_conda,
    tool_problems,
)
from trainyard.tasks.training.packages.requirements import Requirements

INSTALLED = {"torch": "2.13.0+cpu", "horovod": "0.28.1"}
FILE = """\
name: training
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip
  - ffmpeg>=6
  - conda-forge::sox=14.4
  - pytorch=2.13
  - pip:
    - scikit-learn
    - --index-url https://example.org
"""


def read(source, *packages, file=None):
    pip = Requirements()
    return read_conda(source, packages, file, pip, INSTALLED, "3.11.7"), pip


def test_a_file_is_divided_between_conda_and_pip(tmp_path):
    (tmp_path / "env.yml").write_text(FILE)
    request, pip = read(tmp_path, "libsndfile", file="env.yml")
    assert request.problems == []
    assert request.channels == ["conda-forge"]
    assert request.specs == ["libsndfile", "ffmpeg>=6", "conda-forge::sox=14.4"]
    assert [line.text for line in pip.wanted] == ["scikit-learn"]
    assert len(pip.problems) == 1 and "--index-url is no requirement" in pip.problems[0]


@pytest.mark.parametrize(
    ("spec", "installed"),
    [
        ("python=3.9", "python 3.11.7"),
        ("pytorch=1.13=py3.9_cuda11.6_cudnn8.3.2_0", "torch 2.13.0+cpu"),
        ("pytorch::pytorch<2", "torch 2.13.0+cpu"),
        ("mpi4py", "not installed"),
        ("a b c $", "no conda specification"),
    ],
)
def test_what_cannot_be_met_names_both_sides(tmp_path, spec, installed):
    (problem,) = read(tmp_path, spec)[0].problems
    assert spec in problem and installed in problem


@pytest.mark.parametrize(
    ("condition", "takes"),
    [
        *(("", True), ("*", True), ("=2.13", True), ("=2.13.*", True), ("2.13.0", True), ("==2.13.0", True)),
        *((">=2,<3", True), ("=2.13=build_0", True), ("=2.1", False), ("<2", False), ("nonsense", False)),
    ],
)
def test_version_conditions_as_conda_reads_them(condition, takes):
    assert _accepts(condition, "2.13.0+cpu") is takes


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("- a\n", "no mapping"),
        ("a: [\n", "is not YAML"),
        ("dependencies: [{conda: [x]}]\n", "a dependency is a text"),
        ("variables: {A: b}\n", "'variables' is not supported"),
        ("channels: [--yes]\n", "is no channel"),
        ("channels: ['https://me:secret@host/channel']\n", "holds a password"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, problem):
    (tmp_path / "env.yml").write_text(content)
    (found,) = read(tmp_path, file="env.yml")[0].problems
    assert problem in found and "secret" not in found


def test_the_file_must_be_in_the_source(tmp_path):
    assert "is not a file" in read(tmp_path, file="env.yml")[0].problems[0]
    assert "outside the source directory" in read(tmp_path, file="../env.yml")[0].problems[0]


def test_the_command_is_a_value():
    request = CondaRequest(["conda-forge", "extra"], ["ffmpeg>=6", "sox"])
    command = conda_command("/x/mamba", Path("/h/p"), request, {"PATH": "/b", "CONDA_PREFIX": "/a"}, 9.0)
    assert command.argv == (
        *("/x/mamba", "create", "--yes", "--prefix", "/h/p", "--override-channels"),
        *("--channel", "conda-forge", "--channel", "extra", "ffmpeg>=6", "sox"),
    )
    assert command.env == {"PATH": "/b"} and command.timeout_s == 9.0


def test_a_missing_tool_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = tool_problems(CondaRequest(["c"], ["ffmpeg"]))
    assert "micromamba, mamba, conda" in problem and "ffmpeg" in problem
    assert tool_problems(CondaRequest(["c"], [])) == []


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A program in micromamba's place: it makes a prefix, and can do what the real one does on failure."""
    program = tmp_path / "bin" / "micromamba"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "prefix = pathlib.Path(sys.argv[sys.argv.index('--prefix') + 1])\n"
        "if 'fails' in sys.argv[-1]: sys.exit(print('Could not solve: nothing provides', sys.argv[-1]) or 1)\n"
        "if 'offline' in sys.argv[-1]: sys.exit(print('Download error: Could not resolve host') or 1)\n"
        "(prefix / 'conda-meta').mkdir(parents=True)\n"
        "(prefix / 'builds').open('a').write('x')\n"
        "if 'pypackage' in sys.argv[-1]: (prefix / 'conda-meta' / 'python-3.9.1-h0_0.json').touch()\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def build(home, spec):
    return build_conda(CondaRequest(["conda-forge"], [spec]), home, "3.11.7", 60.0)


def test_an_environment_is_built_once(stand_in, tmp_path):
    first, again = build(tmp_path / "home", "ffmpeg"), build(tmp_path / "home", "ffmpeg")
    assert first == again and first.site_packages is None
    assert (first.path / "builds").read_text() == "x"


def test_failures_say_whether_another_attempt_helps(stand_in, tmp_path):
    with pytest.raises(InvalidInputError, match="nothing provides fails"):
        build(tmp_path, "fails")
    with pytest.raises(TransientError, match="cannot be reached"):
        build(tmp_path, "offline")


def test_packages_of_another_python_are_refused(stand_in, tmp_path):
    with pytest.raises(InvalidInputError, match=r"Python 3\.9\.1, and training runs on Python 3\.11\.7"):
        build(tmp_path, "pypackage")


def test_its_programs_and_libraries_come_last():
    environment = CondaEnvironment(Path("/c"), None).environment({"PATH": "/a:/b", "LD_LIBRARY_PATH": "/l"})
    assert environment == {"PATH": "/a:/b:/c/bin", "LD_LIBRARY_PATH": "/l:/c/lib", "CONDA_PREFIX": "/c"}
