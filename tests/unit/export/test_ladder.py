"""Which ways of exporting are tried, and what makes one fail."""

import logging

import pytest
from onnxscript import ir

from tests.unit.onnx_models import export_program, make_context, program, put_files
from trainyard.tasks.errors import ExportError
from trainyard.tasks.export import exporter
from trainyard.tasks.export.ladder import attempts_for
from trainyard.tasks.models.bundle import verify_bundle
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.page import render_page
from trainyard.tasks.validation.rendering import render_markdown
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.validate import validate_model

pytestmark = pytest.mark.usefixtures("forked_models")


def freeze(model):
    value = model.graph.inputs[0]
    value.shape = ir.Shape([8, *list(value.shape)[1:]])


def wrong_type(model):
    model.graph.outputs[0].dtype = ir.DataType.INT64


def spoil_where(monkeypatch, spoil, is_spoilt):
    """The exporter itself succeeds, with a model that is not what was asked for."""
    original = exporter.convert

    def convert(model, axes, names, attempt, scratch):
        converted = original(model, axes, names, attempt, scratch)
        if is_spoilt(attempt):
            spoil(converted)
        return converted

    monkeypatch.setattr(exporter, "convert", convert)


@pytest.mark.parametrize(
    ("spoil", "most_inline", "reason"),
    [(freeze, 0, "one batch size only: images [8, 1, 8, 8]"), (wrong_type, 0, "not valid ONNX")],
)
def test_an_attempt_whose_model_is_not_what_was_asked_for_failed_and_the_next_is_tried(
    tmp_path, monkeypatch, caplog, spoil, most_inline, reason
):
    context = make_context(tmp_path)
    monkeypatch.setattr(exporter, "MAX_INLINE_BYTES", most_inline)
    spoil_where(monkeypatch, spoil, lambda attempt: attempt.exporter == "dynamo")
    with caplog.at_level(logging.INFO):
        bundle = export_program(context, tmp_path, program())
    first, second = bundle.attempts
    assert (first.exporter, second.exporter, second.error) == ("dynamo", "torchscript", None)
    assert reason in first.error
    assert f"dynamo exporter, default opset failed: {first.error}" in caplog.text
    verify_bundle(context.store.materialize(bundle.bundle, tmp_path / "copy"))  # no file of the failed attempt in it
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": program()})
    product = validate_model(OrtValidation(batch_sizes=(1, 8)), bundle, outputs, context)
    report = ValidationReport.model_validate_json(context.store.read_bytes(product.report))
    assert report.attempts == bundle.attempts
    for shown in (render_page(report), render_markdown(report)):
        assert first.error.partition("'")[0][:60] in shown and "TorchScript exporter, default opset" in shown


def test_without_fallbacks_a_model_that_is_not_what_was_asked_for_is_an_error(tmp_path, monkeypatch):
    spoil_where(monkeypatch, freeze, lambda attempt: True)
    with pytest.raises(ExportError, match=r"dynamo exporter, default opset: The saved program takes one batch size"):
        export_program(make_context(tmp_path), tmp_path, program(), fallbacks=[])


def test_lower_opsets_begin_below_the_one_asked_for_or_the_default(tmp_path, monkeypatch):
    def tried(opset, *fallbacks):
        return [a.opset for a in attempts_for(OnnxExport(opset=opset, fallbacks=fallbacks), "program")]

    assert tried(None) == [None]
    assert tried(20, "lower_opset") == [20, 19, 18]
    default, *lower = tried(None, "lower_opset")
    assert default is None and lower[-1] == 18
    assert tried(None, "torchscript", "lower_opset")[:4] == [None, None, lower[0], lower[0]]
    bundle = export_program(make_context(tmp_path), tmp_path, program())
    assert lower[0] == bundle.opset - 1  # just below what the exporter gives where nothing is asked for
    spoil_where(monkeypatch, wrong_type, lambda attempt: attempt.opset is None)
    bundle = export_program(make_context(tmp_path / "lower"), tmp_path, program(), fallbacks=["lower_opset"])
    assert bundle.opset == bundle.attempts[-1].opset == lower[0]
