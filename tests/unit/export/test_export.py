import json
import pickle
import subprocess
import sys
import zipfile

import onnx
import pytest
import torch
from onnxscript import ir
from torch import nn

from tests.unit.onnx_models import TokensAndMask, export_program, make_context, program, put_files
from trainyard.tasks.errors import ExportError, ModelNotFoundError
from trainyard.tasks.export import exporter
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.export.find import find_model
from trainyard.tasks.export.task import EXPORT, export_components
from trainyard.tasks.specs.export import OnnxExport


def model_of(context, bundle):
    return onnx.load_from_string(context.store.read_entry(bundle.bundle, "model.onnx"))


def signature_of(context, bundle):
    return json.loads(context.store.read_entry(bundle.bundle, "signature.json"))


def test_a_program_becomes_a_bundle_with_names_and_a_dynamic_batch(context, tmp_path, capfd):
    bundle = export_program(context, tmp_path, program())
    assert [entry.path for entry in context.store.list_tree(bundle.bundle).entries] == [
        "bundle.json",
        "model.onnx",
        "signature.json",
    ]
    assert signature_of(context, bundle) == {
        "inputs": [{"name": "images", "dtype": "float32", "shape": ["batch", 1, 8, 8]}],
        "outputs": [{"name": "output", "dtype": "float32", "shape": ["batch", 10]}],
        "batch_size": 8,
    }
    assert bundle.model_file == "model.pt2"
    assert "".join(capfd.readouterr()) == ""  # the exporter talks a lot when it may


def test_the_model_says_what_it_was_made_of_and_names_no_file_of_the_training_machine(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": program()})
    bundle = export_onnx(OnnxExport(), outputs, context, origin={"trainyard.dataset.0": "c" * 64})
    properties = {prop.key: prop.value for prop in model_of(context, bundle).metadata_props}
    assert properties["trainyard.outputs_sha256"] == outputs.sha256
    assert properties["trainyard.torch"] == torch.__version__
    assert properties["trainyard.dataset.0"] == "c" * 64
    assert properties["trainyard.exporter"] == "dynamo exporter, default opset"
    assert b"onnx_models.py" not in context.store.read_entry(bundle.bundle, "model.onnx")


def test_two_exports_are_the_same_bytes(tmp_path):
    first, second = make_context(tmp_path / "a"), make_context(tmp_path / "b")
    bundles = [export_program(context, context.home, program()) for context in (first, second)]
    assert bundles[0].bundle.sha256 == bundles[1].bundle.sha256


@pytest.mark.parametrize("opset", [18, 23])
def test_the_opset_asked_for_is_the_opset_of_the_model(context, tmp_path, opset):
    bundle = export_program(context, tmp_path, program(), opset=opset)
    assert bundle.opset == opset
    assert {o.domain: o.version for o in model_of(context, bundle).opset_import}[""] == opset


@pytest.mark.parametrize("most_inline", [0, exporter.MAX_INLINE_BYTES])
def test_what_is_no_valid_onnx_is_no_bundle(context, tmp_path, monkeypatch, most_inline):
    """The checker and shape inference read the file, with its weights inside or beside it."""
    monkeypatch.setattr(exporter, "MAX_INLINE_BYTES", most_inline)

    def convert(*arguments):
        model = exporter_convert(*arguments)
        spoil(model)
        return model

    exporter_convert = exporter.convert
    monkeypatch.setattr(exporter, "convert", convert)

    def unknown_operator(model):
        next(iter(model.graph)).op_type = "NoSuchOperator"

    def wrong_type(model):
        model.graph.outputs[0].dtype = ir.DataType.INT64

    for spoil in (unknown_operator, wrong_type):
        folder = tmp_path / spoil.__name__
        with pytest.raises(ExportError, match="The exported model is not valid ONNX"):
            export_program(context, folder, program())


def test_several_inputs_and_outputs_keep_their_names(context, tmp_path):
    signature = signature_of(context, export_program(context, tmp_path, program(TokensAndMask)))
    assert [(t["name"], t["dtype"]) for t in signature["inputs"]] == [("tokens", "int64"), ("mask", "bool")]
    assert [(t["name"], t["shape"]) for t in signature["outputs"]] == [
        ("scores", ["batch", 16]),
        ("lengths", ["batch"]),
        ("last", [1, "batch", 16]),
    ]


def test_a_frozen_batch_is_refused_unless_it_is_wanted(context, tmp_path):
    with pytest.raises(ExportError, match=r"one batch size only: images \[8, 1, 8, 8\].*Dim\('batch'\)"):
        export_program(context, tmp_path, program(dynamic=False))
    bundle = export_program(context, tmp_path, program(dynamic=False), dynamic_batch=False)
    assert signature_of(context, bundle)["inputs"][0]["shape"] == [8, 1, 8, 8]


def test_no_model_is_told_what_was_looked_for_and_found(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {"weights.dat": b"123", "notes/a.txt": b"hello"})
    with pytest.raises(ModelNotFoundError) as caught:
        export_onnx(OnnxExport(), outputs, context)
    message = str(caught.value)
    assert r"one file *.pt2" in message
    assert "notes/a.txt (5 bytes), weights.dat (3 bytes)" in message
    assert 'torch.export.save(program, "outputs/model.pt2")' in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_a_model_that_was_saved_elsewhere_is_pointed_at(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {})
    with pytest.raises(ModelNotFoundError, match=r"also wrote model\.pt2 \(9 bytes\): only what lies below ./outputs"):
        export_onnx(OnnxExport(), outputs, context, left_outside=("model.pt2 (9 bytes)",))


def test_no_file_at_all_and_a_name_that_is_not_there(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {})
    with pytest.raises(ModelNotFoundError, match="found no file at all"):
        export_onnx(OnnxExport(), outputs, context)
    with pytest.raises(ModelNotFoundError, match=r"the file 'best.pt2' \(OnnxExport.model_file\)"):
        export_onnx(OnnxExport(model_file="best.pt2"), outputs, context)


def test_of_two_programs_one_must_be_named(context, tmp_path):
    files = {"best.pt2": program(), "last.pt2": b"unused"}
    outputs = put_files(context, tmp_path / "outputs", files)
    with pytest.raises(ModelNotFoundError, match=r"2 programs, best.pt2, last.pt2.*model_file='best.pt2'"):
        export_onnx(OnnxExport(), outputs, context)
    assert export_onnx(OnnxExport(model_file="best.pt2"), outputs, context).model_file == "best.pt2"


def test_one_program_under_two_names_is_one(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {"epoch-3.pt2": b"the same", "latest.pt2": b"the same"})
    assert find_model(OnnxExport(), context.store.list_tree(outputs).entries) == "epoch-3.pt2"


def test_what_is_no_program_at_all_is_refused(context, tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ExportError, match=r"model.pt2 in the run's outputs is not a program") as caught:
        export_program(context, tmp_path, (tmp_path / "archive.zip").read_bytes())
    assert caught.value.__cause__ is not None
    with pytest.raises(ExportError, match=r"model.pt2 in the run's outputs is not a saved model: .*b'hello wor'"):
        export_program(context, tmp_path / "other", b"hello world")


def test_an_operation_without_onnx_is_named(context, tmp_path):
    @torch.library.custom_op("trainyard_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @twice.register_fake
    def _(x):
        return torch.empty_like(x)

    class Custom(nn.Module):
        def forward(self, x):
            return torch.ops.trainyard_tests.twice(x)

    with pytest.raises(
        ExportError, match=r"(?s)cannot express the model; tried:.*dynamo exporter.*trainyard_tests\.twice"
    ) as caught:
        export_program(context, tmp_path, save_bytes(Custom(), tmp_path))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def save_bytes(model, tmp_path):
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(model, (torch.ones(4, 3),), dynamic_shapes=(batch,))
    torch.export.save(exported, tmp_path / "saved.pt2")
    return (tmp_path / "saved.pt2").read_bytes()


def test_the_key_follows_settings_and_outputs_and_code(context, tmp_path):
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": b"1"})
    other = put_files(context, tmp_path / "others", {"model.pt2": b"2"})
    variants = [(OnnxExport(), outputs), (OnnxExport(opset=21), outputs), (OnnxExport(), other)]
    keys = {EXPORT.key(export_components(*variant, None, context.store)).sha256 for variant in variants}
    assert len(keys) == 3
    code = EXPORT.key({}).components
    assert {"code:export/exporter.py", "code:models/program.py", "library:onnxscript"} <= set(code)
    assert "code:export/origin.py" in code, "it decides bytes of the model: its metadata"


def test_the_orchestrating_process_does_not_pay_for_the_stages():
    code = """
import sys
import trainyard.tasks.export.task, trainyard.tasks.validation.task, trainyard.tasks.registry.task
heavy = {"torch", "onnx", "onnxruntime", "onnxscript"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
