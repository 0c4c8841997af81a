"""A real conda tool on a channel made here; where none is installed, there is nothing to try."""

import os
import platform
import subprocess

import pytest

from tests.conda_channel import make_package
from trainyard import PyTorch
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.training.packages.conda import find_tool
from trainyard.tasks.training.packages.packages import prepare, read_asked, resolve

pytestmark = pytest.mark.skipif(find_tool() is None, reason="no micromamba, mamba or conda on the PATH")
SITE_PACKAGES = f"lib/python{'.'.join(platform.python_version_tuple()[:2])}/site-packages"


@pytest.fixture
def channel(tmp_path):
    """A program, and a Python package with the Python that it is for."""
    folder = tmp_path / "channel"
    python = platform.python_version()
    make_package(folder, "greeter", "1.0", {"bin/greet": "#!/bin/sh\necho hello, I am 1.0\n"})
    make_package(folder, "greeter", "2.0", {"bin/greet": "#!/bin/sh\necho hello, I am 2.0\n"})
    make_package(folder, "python", python, {f"{SITE_PACKAGES}/README.txt": "in Python's place\n"})
    make_package(folder, "pip", "25.0", {f"{SITE_PACKAGES}/pip.txt": "conda puts it beside each Python\n"})
    make_package(folder, "phrases", "1.0", {f"{SITE_PACKAGES}/phrases.py": "HELLO = 'hello'\n"}, ["python >=3"])
    return folder


@pytest.fixture
def build(channel, tmp_path):
    source = tmp_path / "project"
    source.mkdir()
    (source / "train.py").touch()
    context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home", timeout_s=300)

    def build(*packages):
        lines = ["channels:", f"  - file://{channel}", "dependencies:", *(f"  - {package}" for package in packages)]
        (source / "environment.yml").write_text("\n".join(lines) + "\n")
        estimator = {"source_directory": str(source), "entry_script": "train.py"}
        asked = read_asked(PyTorch(**estimator, conda_dependencies_file="environment.yml"))
        assert asked.problems == []
        return prepare(asked, resolve(asked, context, anew=False), context)

    return build


def run(packages, *command):
    environment = packages.environment(os.environ)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_programs_are_on_the_path_of_the_script(build):
    packages = build("greeter=1")
    assert run(packages, "greet") == "hello, I am 1.0\n"
    assert build("greeter=1") == packages, "it is built once"
    assert run(build("greeter"), "greet") == "hello, I am 2.0\n"


def test_python_packages_are_found_below_those_that_are_installed(build):
    packages = build("phrases")
    python = str(packages.python)
    assert run(packages, python, "-c", "import phrases, torch; print(phrases.HELLO, torch.__name__)") == "hello torch\n"


@pytest.mark.parametrize("package", ["no-such-package", "greeter=9"])
def test_what_the_channel_does_not_have_is_named(build, package):
    with pytest.raises(InvalidInputError, match=package.partition("=")[0]):
        build(package)
