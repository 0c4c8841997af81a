"""Where a model is made by the project's code, what that imports decides it as much as the code itself."""

import pytest

from tests.unit.imported.test_distributions import install
from trainyard.tasks.export.task import EXPORT
from trainyard.tasks.models.key import model_components
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.training.snapshot import snapshot_source
from trainyard.tasks.validation.task import VALIDATE

FACTORY = OnnxExport(module="nets:make")


@pytest.fixture
def source(context, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "nets.py").write_text("import toynet\nmake = toynet.Net\n")
    return snapshot_source(project, context.store)


@pytest.fixture
def toynet(tmp_path, monkeypatch):
    """Installs a version of a library."""

    def install_version(version):
        folder = tmp_path / version
        folder.mkdir()
        install(folder, "toynet", version)
        monkeypatch.syspath_prepend(folder)

    return install_version


@pytest.mark.parametrize("settings", [FACTORY, OnnxExport(allow_pickle=True)], ids=["factory", "pickle"])
def test_another_version_of_a_library_that_the_factory_imports_is_another_model(context, source, toynet, settings):
    toynet("1.0")
    before = model_components(settings, source, source, context.store)
    toynet("2.0")
    after = model_components(settings, source, source, context.store)
    assert (before["library:toynet"], after["library:toynet"]) == ("1.0", "2.0")
    assert {name for name in after if before[name] != after[name]} == {"library:toynet"}


def test_of_code_on_pythonpath_the_bytes_decide(context, source, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "toynet.py").write_text("Net = 1\n")
    before = model_components(FACTORY, source, source, context.store)
    (tmp_path / "elsewhere" / "toynet.py").write_text("Net = 2\n")
    assert model_components(FACTORY, source, source, context.store) != before


def test_a_model_that_needs_no_code_does_not_depend_on_it(context, source, toynet):
    toynet("1.0")
    assert list(model_components(OnnxExport(), source, source, context.store)) == ["input:outputs"]


def test_whatever_else_reads_or_draws_the_model_decides_too(context, source):
    assert {"library:onnx-ir", "library:safetensors", "library:torch"} <= set(EXPORT.key({}).components)
    assert {"library:matplotlib", "library:safetensors", "library:torch"} <= set(VALIDATE.key({}).components)
    assert "code:runtime/azureml_compat.py" in model_components(FACTORY, source, source, context.store)
