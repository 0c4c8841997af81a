from importlib.metadata import version

from trainyard.tasks.training.imports import imported_distributions


def found(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return imported_distributions(sorted(tmp_path.glob("*.py")))


def test_what_is_imported_anywhere_counts_under_its_distributions_name(tmp_path):
    libraries = found(
        tmp_path,
        train="import os, yaml\ndef late():\n    from sklearn.datasets import load_digits\n",
        model="import tasks\nfrom . import other\n",
    )
    assert libraries["pyyaml"] == version("PyYAML")
    assert libraries["scikit-learn"] == version("scikit-learn")
    assert "prefect" not in libraries


def test_what_those_need_counts_too(tmp_path):
    assert "scipy" in found(tmp_path, train="import sklearn\n")


def test_we_are_not_the_projects_library(tmp_path):
    assert found(tmp_path, train="from trainyard import Run\n") == {}


def test_what_cannot_be_parsed_imports_nothing(tmp_path):
    assert found(tmp_path, train="import (\n", other="\0") == {}
