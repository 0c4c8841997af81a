"""Exports that are wrong in ways that happen: each must be caught, and the report must say where."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from tests.unit.onnx_models import Cnn, exported, images, logits, make_context, npz, program, put_files
from tests.unit.saved_models import NETWORK, project
from tests.unit.validation.test_models_that_work import TABLE, saved, trained
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import ArtifactDamagedError, ExportError, ValidationFailedError
from trainyard.tasks.export import exporter
from trainyard.tasks.models.bundle import BundleDescription, describe_files, verify_bundle, write_description
from trainyard.tasks.models.process import ModelProcess
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.figures import Footprint
from trainyard.tasks.validation.gate import provider_check
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.validate import validate_model

pytestmark = pytest.mark.usefixtures("forked_models")


@pytest.fixture
def failures(tmp_path):
    """Validate a program against a bundle whose files were changed; gives the names of the checks that failed."""

    def run(trained, exported_from=None, change=None, describe=True, samples=None, **settings):
        context = make_context(tmp_path)
        bundle, files = exported(exported_from or trained, True)
        folder = tmp_path / "bundle"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if change is not None:
            change(folder)
        if describe:  # as an exporter that is wrong would
            description = BundleDescription.model_validate_json((folder / "bundle.json").read_bytes())
            write_description(description.model_copy(update={"files": describe_files(folder)}), folder)
        bundle = bundle.model_copy(update={"bundle": context.store.put_tree(folder)})
        outputs = put_files(
            context,
            tmp_path / "outputs",
            {"model.pt2": trained, **({"validation_samples.npz": samples} if samples else {})},
        )
        with pytest.raises(ValidationFailedError) as caught:
            validate_model(OrtValidation(**settings), bundle, outputs, context)
        page = caught.value.page_path
        assert "failed" in Path(page).read_text()
        report = ValidationReport.model_validate_json(Location(caught.value.report_uri).read_bytes())
        return {check.name: check.found for check in report.failures}

    return run


class Scaled(Cnn):
    """Preprocessing inside the model: scaled, then centred."""

    def forward(self, images):
        return super().forward(images / 2 - 0.5)


class Centred(Cnn):
    """The same steps in the wrong order."""

    def forward(self, images):
        return super().forward((images - 0.5) / 2)


def test_wrong_preprocessing_order_in_the_model(failures):
    found = failures(program(Scaled), program(Centred))
    assert "CPUExecutionProvider, batch 8, output: parity" in found


def test_wrong_preprocessing_order_of_the_samples(failures):
    """Both runtimes agree on garbage: only the labels tell."""
    raw = images(256)
    labels = logits(program(), raw / 2 - 0.5).argmax(1)
    found = failures(program(), samples=npz(images=(raw - 0.5) / 2, labels=labels), min_metrics={"accuracy": 0.99})
    assert list(found) == ["CPUExecutionProvider: accuracy"]


class Difference(nn.Module):
    def forward(self, a, b):
        return a - 2 * b


def test_swapped_inputs(failures):
    def swap(folder):
        model = onnx.load(folder / "model.onnx")
        other = {"a": "b", "b": "a"}
        for node in model.graph.node:
            node.input[:] = [other.get(name, name) for name in node.input]
        onnx.save(model, folder / "model.onnx")

    pair = {name: np.random.default_rng(n).normal(size=(30, 3)).astype(np.float32) for n, name in enumerate("ab")}
    found = failures(saved(Difference, pair, {}), change=swap, samples=npz(**pair))
    assert "CPUExecutionProvider, batch 4, output: parity" in found


def test_a_frozen_batch_size_behind_a_signature_that_says_otherwise(failures):
    fixed = exported(program(dynamic=False), False)[1]["model.onnx"]
    found = failures(program(), change=lambda folder: (folder / "model.onnx").write_bytes(fixed))
    assert {"CPUExecutionProvider, batch 1: runs", "CPUExecutionProvider, batch 7: runs"} <= set(found)


def test_a_frozen_sequence_length(failures):
    """An export of the example's length, under a signature with any length."""
    inputs = TABLE["transformer"][1]
    fixed = exported(trained("transformer", any_length=False), True)[1]["model.onnx"]

    def freeze(folder):
        (folder / "model.onnx").write_bytes(fixed)

    found = failures(trained("transformer"), change=freeze, samples=npz(**inputs))
    (name,) = found
    assert re.fullmatch(r"CPUExecutionProvider, batch 7, \w+ 5: runs", name)


def test_a_provider_that_leaves_all_nodes_to_another(failures):
    import onnxruntime

    silent = "AzureExecutionProvider"  # lists itself first, and runs nothing on its own
    if silent not in onnxruntime.get_available_providers():
        pytest.skip(f"onnxruntime {onnxruntime.__version__} has no {silent}")
    found = failures(program(), providers=("CPUExecutionProvider", silent))
    assert found.keys() == {f"{silent}: runs nodes"}
    assert "in CPUExecutionProvider" in found[f"{silent}: runs nodes"]


def test_a_provider_whose_nodes_cannot_be_counted(failures, monkeypatch):
    """The process that measures ends without an answer: nothing is proven, so nothing is passed."""
    from trainyard.tasks.validation import footprint

    monkeypatch.setattr(footprint, "MODULE", "trainyard.no_such_module")
    monkeypatch.setattr(footprint, "ModelProcess", ModelProcess)
    found = failures(program())
    assert found.keys() == {"CPUExecutionProvider: runs nodes"}
    assert "not measured: " in found["CPUExecutionProvider: runs nodes"]


@pytest.mark.parametrize(("num_nodes", "least", "passed"), [(1, 0.5, False), (50, 0.5, True), (50, 0.51, False)])
def test_a_provider_that_runs_too_few_of_the_nodes(num_nodes, least, passed):
    provider = "CUDAExecutionProvider"
    nodes = {provider: num_nodes, "CPUExecutionProvider": 100 - num_nodes}
    figures = Footprint(provider=provider, load_ms=1, peak_num_bytes=1, nodes=nodes)
    check = provider_check(figures, OrtValidation(min_node_share=least))
    assert check.passed is passed
    assert f"{num_nodes} of 100 do ({num_nodes}%), {100 - num_nodes} in CPUExecutionProvider" in check.found
    on_cpu = figures.model_copy(update={"provider": "CPUExecutionProvider"})
    assert not provider_check(on_cpu, OrtValidation(min_node_share=least)).passed  # it takes every node


def test_stale_external_data(failures, monkeypatch):
    monkeypatch.setattr(exporter, "MAX_INLINE_BYTES", 0)
    stale = exported(program(seed=1), True)[1]
    assert set(stale) == {"bundle.json", "model.onnx", "model.onnx.data", "signature.json"}
    found = failures(program(), change=lambda folder: [(folder / n).write_bytes(d) for n, d in stale.items()])
    assert "CPUExecutionProvider, batch 8, output: parity" in found


@pytest.mark.parametrize("damage", ["missing", "swapped", "more"])
def test_external_data_that_is_missing_or_swapped(tmp_path, failures, monkeypatch, damage):
    monkeypatch.setattr(exporter, "MAX_INLINE_BYTES", 0)
    whole, other = (exported(program(seed=seed), True)[1] for seed in (0, 1))
    assert len(whole["model.onnx.data"]) == len(other["model.onnx.data"])

    def spoil(folder):
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        {
            "missing": lambda: (folder / "model.onnx.data").unlink(),
            "swapped": lambda: (folder / "model.onnx.data").write_bytes(other["model.onnx.data"]),
            "more": lambda: (folder / "notes.txt").write_text("mine"),
        }[damage]()
        with pytest.raises(ArtifactDamagedError):
            verify_bundle(folder)

    found = failures(program(), change=spoil, describe=False)
    said = {
        "missing": "model.onnx.data is missing",
        "swapped": "model.onnx.data was swapped",
        "more": "notes.txt does not",
    }
    assert list(found) == ["bundle: whole"] and said[damage] in found["bundle: whole"]


LEFT_IN_TRAINING = """
import torch, model
torch.jit.trace(model.trained().train(), torch.rand(8, 4), check_trace=False).save("outputs/model.pt")
"""


@pytest.mark.parametrize("operations", ["batch_norm, dropout", "batch_norm"])
def test_a_trace_that_was_made_in_training_mode(tmp_path, operations):
    network = NETWORK if "dropout" in operations else NETWORK.replace("Dropout(0.5)", "Dropout(0)")
    with pytest.raises(ExportError, match=f"TorchScript file was saved in training mode: {operations} would act"):
        project(tmp_path, LEFT_IN_TRAINING, model=network).export()


def test_a_script_made_in_training_mode_asks_for_its_mode_and_is_no_defect(tmp_path):
    script = "import torch, model; torch.jit.script(model.trained().train()).save('outputs/model.pt')"
    saved = project(tmp_path, script, model=NETWORK)
    product, report = saved.validate(saved.export())
    assert product.summary.passed
    assert [c.passed for c in report.checks if c.name.endswith("samples independent")] == [True]


CENTRED_BY_ITS_BATCH = """
import torch
from torch import nn

class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return y - y.mean(0)
"""


@pytest.mark.parametrize("dynamic_batch", [True, False])
def test_answers_that_depend_on_the_other_samples_of_the_batch(tmp_path, dynamic_batch):
    """Both runtimes agree, at every batch size."""
    script = "import torch, model; torch.save(model.Centred().state_dict(), 'outputs/model.pt')"
    saved = project(tmp_path, script, model=CENTRED_BY_ITS_BATCH)
    bundle = saved.export(module="model:Centred", dynamic_batch=dynamic_batch)
    with pytest.raises(ValidationFailedError, match=r"samples independent: .*; found output differs") as caught:
        saved.validate(bundle)
    report = ValidationReport.model_validate_json(Location(caught.value.report_uri).read_bytes())
    assert len(report.failures) == 1
    assert saved.validate(bundle, batch_dependent=True)[0].summary.passed


def test_a_worse_model_than_the_champion(tmp_path):
    from trainyard.tasks.artifacts.products import Champion

    context = make_context(tmp_path)
    _, files = exported(program(), True)
    champion = Champion(version=3, bundle=put_files(context, tmp_path / "champion", files))
    x = images(200)
    samples = npz(images=x, labels=logits(program(), x).argmax(1))
    challenger = program(seed=1)
    bundle, files = exported(challenger, True)
    bundle = bundle.model_copy(update={"bundle": put_files(context, tmp_path / "bundle", files)})
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": challenger, "validation_samples.npz": samples})

    def run(margin, *metrics):
        settings = OrtValidation(champion_margin=margin, champion_metrics=metrics or None)
        return validate_model(settings, bundle, outputs, context, champion=champion)

    with pytest.raises(ValidationFailedError, match=r"champion version 3: accuracy: expected at most 0.1 below"):
        run(0.1)
    assert run(1.0).champion_version == 3
    # the one that is better the lower it is: worse is above, not below
    with pytest.raises(ValidationFailedError, match=r"version 3: log_loss: expected at most 0.001 above") as caught:
        run(0.001, "log_loss", "accuracy")
    report = ValidationReport.model_validate_json(Location(caught.value.report_uri).read_bytes())
    assert len(report.failures) == 2
    assert {f.metric for f in report.champion if f.decides} == {"log_loss", "accuracy"}
    assert len(report.champion) == len(report.quality)
