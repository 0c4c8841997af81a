"""What a script may leave behind, beside a torch.export program."""

import json

import onnx
import pytest

from tests.unit.saved_models import NETWORK, project
from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.bundle import verify_bundle

pytestmark = pytest.mark.usefixtures("forked_models")


def names(project, bundle):
    signature = json.loads(project.context.store.read_entry(bundle.bundle, "signature.json"))
    return [[(t["name"], t["shape"]) for t in signature[side]] for side in ("inputs", "outputs")]


def model_of(project, bundle):
    return onnx.load_from_string(project.context.store.read_entry(bundle.bundle, "model.onnx"))


EXPECTED = [[("x", ["batch", 4])], [("output", ["batch", 3])]]

STATE_DICT = "import torch, model; torch.save(model.trained().state_dict(), 'outputs/model.pt')"
LEGACY = (
    "import torch, model; "
    "torch.save(model.trained().state_dict(), 'outputs/model.pth', _use_new_zipfile_serialization=False)"
)
CHECKPOINT = (
    "import torch, model; torch.save({'epoch': 3, 'state_dict': model.trained().state_dict()}, 'outputs/last.ckpt')"
)
PARALLEL = """
import torch, model
torch.save(torch.nn.DataParallel(model.trained()).state_dict(), 'outputs/model.pt')
"""


@pytest.mark.parametrize("script", [STATE_DICT, LEGACY, CHECKPOINT, PARALLEL])
def test_weights_and_a_factory(tmp_path, script):
    saved = project(tmp_path, script, model=NETWORK)
    bundle = saved.export(module="model:Net")
    assert names(saved, bundle) == EXPECTED
    assert [attempt.error for attempt in bundle.attempts] == [None]
    product, report = saved.validate(bundle)
    assert product.summary.passed and report.samples.num_samples == 300


def test_a_factory_in_a_package_with_parameters(tmp_path):
    script = "import torch, nets.small; torch.save(nets.small.trained(hidden=8).state_dict(), 'outputs/model.pt')"
    saved = project(tmp_path, script, nets____init__="", nets__small=NETWORK)
    bundle = saved.export(module="nets.small:Net", module_params={"hidden": 8})
    assert names(saved, bundle) == EXPECTED
    with pytest.raises(ExportError, match=r"does not fit nets.small:Net: .*size mismatch"):
        saved.export(module="nets.small:Net")
    with pytest.raises(ExportError, match=r"'nets.small:Nothing' cannot be imported from the source directory"):
        saved.export(module="nets.small:Nothing")


def test_weights_without_a_factory_say_what_to_set(tmp_path):
    saved = project(tmp_path, STATE_DICT, model=NETWORK)
    with pytest.raises(ExportError, match=r"model.pt .* is a state dict, weights without a model: .*module='package"):
        saved.export()


def test_weights_of_another_model_are_told_apart(tmp_path):
    script = "import torch; torch.save({'weight': torch.ones(2)}, 'outputs/model.pt')"
    saved = project(tmp_path, script, model=NETWORK)
    with pytest.raises(ExportError, match=r"not that of model:Net: missing first.bias, .* unexpected weight"):
        saved.export(module="model:Net")


SCRIPTED = "import torch, model; torch.jit.script(model.trained().eval()).save('outputs/model.pt')"
TRACED = "import torch, model; torch.jit.trace(model.trained().eval(), torch.rand(2, 4)).save('outputs/model.ts')"


@pytest.mark.parametrize("script", [SCRIPTED, TRACED])
def test_torchscript(tmp_path, script):
    saved = project(tmp_path, script, model=NETWORK)
    bundle = saved.export()
    assert names(saved, bundle) == EXPECTED
    assert [attempt.exporter for attempt in bundle.attempts] == ["torchscript"]
    assert saved.validate(bundle)[0].summary.passed


IN_MAIN = """
import sys
{network}

HIDDEN = 16
arguments = sys.argv[1:]
print("training", file=open("trained.txt", "a"))
model = trained(HIDDEN)
torch.save(model, "outputs/model.pkl")
"""


def test_a_whole_module_of_a_class_of_the_script_itself(tmp_path):
    saved = project(tmp_path, IN_MAIN.format(network=NETWORK))
    with pytest.raises(ExportError, match=r"(?s)model.pkl .* is a pickle: .*allow_pickle=True.*state_dict"):
        saved.export()
    bundle = saved.export(allow_pickle=True)
    assert names(saved, bundle) == EXPECTED
    assert saved.validate(bundle)[0].summary.passed
    assert (tmp_path / "run" / "trained.txt").read_text() == "training\n"  # the script was not run again
    description = json.loads(saved.context.store.read_entry(bundle.bundle, "bundle.json"))
    assert description["was_training"] is True  # and exported in evaluation mode, as the parity shows


@pytest.mark.parametrize(
    "save",
    [
        "torch.save(trained(), 'outputs/model.pth')",
        "torch.save(trained(), 'outputs/model.pth', _use_new_zipfile_serialization=False)",
        "import pickle; pickle.dump(trained(), open('outputs/model.pkl', 'wb'))",
    ],
)
def test_a_whole_module_of_a_class_of_a_module(tmp_path, save):
    saved = project(tmp_path, f"import torch\nfrom model import trained\n{save}", model=NETWORK)
    with pytest.raises(ExportError, match="is a pickle"):
        saved.export()
    assert names(saved, saved.export(allow_pickle=True)) == EXPECTED


EVIL = """
import pickle, os
class Evil:
    def __reduce__(self):
        return os.system, ("touch {mark}",)
pickle.dump(Evil(), open("outputs/model.pkl", "wb"))
"""


def test_a_pickle_is_not_loaded_without_permission_nor_in_this_process(tmp_path, monkeypatch, own_interpreter):
    saved = project(tmp_path, EVIL.format(mark=tmp_path / "mark"))
    with pytest.raises(ExportError, match="is a pickle"):
        saved.export()
    assert not (tmp_path / "mark").exists()
    asks = """
import pickle, os
class Asks:
    def __reduce__(self):
        return exec, ("import os, json; json.dump([os.getpid(), dict(os.environ)], open({out!r}, 'w'))",)
pickle.dump(Asks(), open("outputs/model.pkl", "wb"))
"""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("HARMLESS", "1")
    import os

    saved = project(tmp_path / "asks", asks.format(out=str(tmp_path / "asked.json")))
    with pytest.raises(ExportError, match="gives a NoneType"):
        saved.export(allow_pickle=True)
    pid, environment = json.loads((tmp_path / "asked.json").read_text())
    assert pid != os.getpid()
    assert environment["HARMLESS"] == "1" and "hush" not in environment.values()


def test_a_pickle_whose_process_dies_is_an_error_with_its_last_words(tmp_path, own_interpreter):
    dies = """
import pickle, os
class Dies:
    def __reduce__(self):
        return exec, ("import os; print('so long', flush=True); os.kill(os.getpid(), 9)",)
pickle.dump(Dies(), open("outputs/model.pkl", "wb"))
"""
    saved = project(tmp_path, dies)
    with pytest.raises(ExportError, match=r"(?s)ended \(SIGKILL; .*memory runs out\).*so long"):
        saved.export(allow_pickle=True)


def test_a_class_that_two_scripts_define(tmp_path):
    saved = project(tmp_path, IN_MAIN.format(network=NETWORK), old_train=NETWORK)
    with pytest.raises(ExportError, match=r"class 'Net'.*old_train.py, train.py .*expected exactly one"):
        saved.export(allow_pickle=True)


def test_a_described_signature_in_place_of_samples(tmp_path):
    saved = project(tmp_path, STATE_DICT, model=NETWORK, samples=False)
    with pytest.raises(ExportError, match=r"needs an example of the model's inputs.*validation_samples.npz.*inputs="):
        saved.export(module="model:Net")
    bundle = saved.export(module="model:Net", inputs=[{"name": "x", "shape": ["batch", 4]}])
    assert names(saved, bundle) == EXPECTED
    _, report = saved.validate(bundle)
    assert report.samples.source == "random"


def test_inputs_that_forward_does_not_have(tmp_path):
    script = "import torch, model; torch.save(model.Pair().state_dict(), 'outputs/model.pt')"
    pair = "from torch import nn\nclass Pair(nn.Module):\n    def forward(self, a, b): return a + b"
    saved = project(tmp_path, script, model=pair)
    with pytest.raises(ExportError, match=r"not those of forward\(a, b\): missing a, b; unknown x"):
        saved.export(module="model:Pair", inputs=[{"name": "x", "shape": ["batch", 4]}])


def test_labels_preprocessing_and_output_names_travel_in_the_bundle(tmp_path):
    script = f"{STATE_DICT}; import json; json.dump(['a', 'b', 'c'], open('outputs/labels.json', 'w')); "
    script += "open('outputs/preprocessing.md', 'w').write('divide by 255')"
    saved = project(tmp_path, script, model=NETWORK)
    bundle = saved.export(module="model:Net", output_names=["scores"])
    folder = saved.context.store.materialize(bundle.bundle, tmp_path / "bundle")
    assert json.loads((folder / "labels.json").read_text()) == ["a", "b", "c"]
    assert (folder / "preprocessing.md").read_text() == "divide by 255"
    assert names(saved, bundle)[1] == [("scores", ["batch", 3])]
    assert {entry.path for entry in verify_bundle(folder).files} == {
        "labels.json",
        "model.onnx",
        "preprocessing.md",
        "signature.json",
    }
    with pytest.raises(ExportError, match="2 labels, but output 'output' has 3 classes"):
        saved.export(module="model:Net", labels=["a", "b"])
    with pytest.raises(ExportError, match="expected 1 different names, for output"):
        saved.export(module="model:Net", output_names=["a", "b"])


BRANCHING = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        if y.sum() > 0:
            return y
        return -y
"""


def test_data_dependent_control_flow_is_explained_and_not_traced_away(tmp_path):
    script = "import torch, model; torch.save(model.Branching().state_dict(), 'outputs/model.pt')"
    saved = project(tmp_path, script, model=BRANCHING)
    with pytest.raises(ExportError) as caught:
        saved.export(module="model:Branching")
    message = str(caught.value)
    assert "data-dependent control flow" in message and "torch.where or torch.cond" in message
    assert "model.py:12: if y.sum() > 0:" in message
    assert "its trace would hold for the example only" in message
    assert message.count("\n  - ") == 3


RECURRENT = """
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.cells = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens):
        return self.head(self.cells(self.embedding(tokens))[0][:, -1])
"""


def test_a_recurrent_model_of_any_sequence_length_takes_the_next_rung(tmp_path):
    """torch.export unrolls recurrent cells, so their length cannot vary: the TorchScript exporter can do it."""
    script = "import torch, model; torch.save(model.Recurrent().state_dict(), 'outputs/model.pt')"
    saved = project(tmp_path, script, model=RECURRENT, samples=False)
    described = [{"name": "tokens", "shape": ["batch", "sequence"], "dtype": "int64", "maximum": 19}]
    bundle = saved.export(module="model:Recurrent", inputs=described)
    assert names(saved, bundle)[0] == [("tokens", ["batch", "sequence"])]
    assert bundle.attempts[-1].exporter == "torchscript"
    assert "sequence" in bundle.attempts[0].error
    product, report = saved.validate(bundle)
    assert product.summary.passed
    assert {entry.sizes.get("sequence") for entry in report.parity} == {None, 5}


ONLY_TRACEABLE = """
import torch
from torch import nn

class Traceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        if torch.compiler.is_exporting() or torch.compiler.is_dynamo_compiling():
            raise TypeError("not this way")
        return self.layer(x)
"""


def test_the_ladder_records_each_attempt_with_its_reason(tmp_path):
    script = "import torch, model; torch.save(model.Traceable().state_dict(), 'outputs/model.pt')"
    saved = project(tmp_path, script, model=ONLY_TRACEABLE)
    bundle = saved.export(module="model:Traceable")
    assert [(a.exporter, a.strict, a.error is None) for a in bundle.attempts] == [
        ("dynamo", False, False),
        ("dynamo", True, False),
        ("torchscript", None, True),
    ]
    assert "TypeError: not this way" in bundle.attempts[0].error
    assert names(saved, bundle) == EXPECTED
    assert saved.validate(bundle)[0].summary.passed
    with pytest.raises(
        ExportError, match=r"(?s)tried:\n  - dynamo exporter, non-strict, default opset: [^\n]*\nReplace"
    ):
        saved.export(module="model:Traceable", fallbacks=[])
    with pytest.raises(ExportError, match=r"TorchScript exporter, opset 25: "):
        saved.export(module="model:Traceable", opset=25)
    lower = saved.export(module="model:Traceable", opset=25, fallbacks=["torchscript", "lower_opset"])
    assert lower.opset == lower.attempts[-1].opset < 25
    properties = {p.key: p.value for p in model_of(saved, lower).metadata_props}
    assert properties["trainyard.exporter"] == f"TorchScript exporter, opset {lower.opset}"


def test_safetensors(tmp_path):
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    script = "import model; from safetensors.torch import save_file; "
    script += "save_file(model.trained().state_dict(), 'outputs/model.safetensors')"
    saved = project(tmp_path, script, model=NETWORK)
    bundle = saved.export(module="model:Net")
    assert names(saved, bundle) == EXPECTED
    assert saved.validate(bundle)[0].summary.passed
