import subprocess
import sys

import pytest

from trainyard.tasks.training import framework
from trainyard.tasks.training.framework import framework_problems


@pytest.mark.parametrize(
    ("asked", "installed", "accepted"),
    [
        (None, "2.13.0", True),
        ("2.13", "2.13.0+cpu", True),
        ("2.13", "2.13.4", True),
        ("2.13", "2.130.0", False),
        ("2.13", "2.12.9", False),
        ("2.13.0", "2.13.0+cu130", True),
        ("2.13.0", "2.13.1", False),
        ("2", "2.13.0", True),
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0+cpu", "2.13.0+cu130", False),
        ("2.14", "2.14.0.dev20261101+cpu", True),
        (">=2.6,<3", "2.13.0+cpu", True),
        (">=2.6,<2.13", "2.13.0+cpu", False),
        ("~=2.12", "2.13.0", True),
        ("==2.13.*", "2.13.0+cpu", True),
    ],
)
def test_versions(monkeypatch, asked, installed, accepted):
    monkeypatch.setattr(framework, "version", lambda name: installed)
    problems = framework_problems(asked)
    assert (problems == []) is accepted
    assert all(repr(asked) in problem and installed in problem for problem in problems)


@pytest.mark.parametrize("asked", ["", " ", "latest", "2.13.*", "=> 2"])
def test_what_is_no_version(asked):
    (problem,) = framework_problems(asked)
    assert "is no version; write it like '2.13'" in problem


def test_the_installed_torch_is_asked_for_its_version():
    import torch

    release = torch.__version__.split("+")[0]
    assert framework_problems(release) == []
    assert framework_problems("1.4") != []


def test_torch_is_not_imported():
    code = (
        "import sys; from trainyard.tasks.training.framework import framework_problems; framework_problems('2.13'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
