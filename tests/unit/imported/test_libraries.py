import json
import sys
from importlib.metadata import version

import pytest

from tests.unit.imported.test_distributions import install
from trainyard.tasks.imported.libraries import import_components
from trainyard.tasks.imported.scripts import scripts_in


def found(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return {name.removeprefix("library:"): value for name, value in components(tmp_path).items()}


def components(project, python_path=None):
    return import_components(scripts_in(project, sorted(project.rglob("*.py"))), python_path, inside=project)


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


@pytest.fixture
def project(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("from common_nets import Net\n")
    return project


@pytest.mark.parametrize("where", ["common_nets.py", "common_nets/net.py", "common_nets/__init__.py"])
def test_code_on_pythonpath_counts_with_its_bytes(tmp_path, project, where):
    code = tmp_path / "elsewhere" / where
    code.parent.mkdir(parents=True)
    code.write_text("class Net: width = 1\n")
    path = str(tmp_path / "elsewhere")
    before = components(project, path)
    assert list(before) == ["code:common_nets"]
    assert components(project, path) == before
    code.write_text("class Net: width = 2\n")
    assert components(project, path) != before
    assert components(project) == {}, "without that path"


def test_code_on_pythonpath_counts_with_what_it_imports(tmp_path, project):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "common_nets.py").write_text("import yaml, common_layers\n")
    (tmp_path / "elsewhere" / "common_layers.py").write_text("import train\n")
    found = components(project, str(tmp_path / "elsewhere"))
    assert list(found) == ["code:common_layers", "code:common_nets", "library:pyyaml"]


def test_the_projects_own_modules_are_not_looked_for_elsewhere(tmp_path, project):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "common_nets.py").write_text("")
    (project / "package" / "deep").mkdir(parents=True)
    (project / "package" / "deep" / "module.py").write_text("import common_nets, package\n")
    (tmp_path / "elsewhere" / "package.py").write_text("")
    (project / "common_nets.py").write_text("")
    assert components(project, str(tmp_path / "elsewhere")) == {}
    assert components(project, str(project)) == {}


@pytest.mark.parametrize("layout", ["", "src", "lib"])
def test_a_distribution_that_is_installed_to_be_edited_counts_with_its_bytes(tmp_path, project, monkeypatch, layout):
    site_packages, edited = tmp_path / "site-packages", tmp_path / "edited"
    site_packages.mkdir()
    monkeypatch.setattr(sys, "path", [str(site_packages)])
    metadata = install(site_packages, "common-nets", "1.0")
    (metadata / "direct_url.json").write_text(json.dumps({"url": edited.as_uri(), "dir_info": {"editable": True}}))
    code = edited / layout / "common_nets" / "net.py"
    code.parent.mkdir(parents=True)
    code.write_text("width = 1\n")
    before = components(project)
    assert list(before) == ["code:edited[common-nets]", "library:common-nets"]
    (edited / ".venv").mkdir()
    (edited / ".venv" / "other.py").write_text("")
    assert components(project) == before
    code.write_text("width = 2\n")
    assert components(project) != before


def test_a_distribution_that_was_installed_from_a_folder_counts_with_its_version(tmp_path, project, monkeypatch):
    site_packages = tmp_path / "site-packages"
    site_packages.mkdir()
    monkeypatch.setattr(sys, "path", [str(site_packages)])
    metadata = install(site_packages, "common-nets", "1.0")
    (metadata / "direct_url.json").write_text(json.dumps({"url": tmp_path.as_uri(), "dir_info": {}}))
    assert components(project) == {"library:common-nets": "1.0"}
