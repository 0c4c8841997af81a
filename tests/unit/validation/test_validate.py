import json
import pickle

import numpy as np
import pytest

from tests.unit.onnx_models import (
    NUM_SAMPLES,
    Cnn,
    HalfPrecision,
    NotANumber,
    TokensAndMask,
    images,
    labelled_samples,
    logits,
    make_context,
    npz,
    program,
    put_bundle,
    put_files,
)
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import InvalidInputError, ValidationFailedError
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.quality import METRICS
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.curves import digest_curves, read_curves
from trainyard.tasks.validation.page import render_page
from trainyard.tasks.validation.rendering import render_markdown
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import spread
from trainyard.tasks.validation.task import VALIDATE, validation_components
from trainyard.tasks.validation.validate import validate_model

pytestmark = pytest.mark.usefixtures("forked_models")


class Binary(Cnn):
    """One score a sample."""

    def forward(self, images):
        return super().forward(images)[:, :1]


class Numbers(Cnn):
    """Three numbers a sample, of which the largest is not a class."""

    def forward(self, images):
        return super().forward(images)[:, :3]


@pytest.fixture
def validate(tmp_path):
    """Validate a program against the export of another, or of itself; gives the product and its report."""
    context = make_context(tmp_path)

    def run(trained=None, exported=None, samples=None, dynamic_batch=True, **settings):
        trained = program() if trained is None else trained
        exported_from = trained if exported is None else exported
        bundle = put_bundle(context, tmp_path, exported_from, dynamic_batch)
        files = {"model.pt2": trained, **({"validation_samples.npz": samples} if samples else {})}
        outputs = put_files(context, tmp_path / "outputs", files)
        product = validate_model(OrtValidation(**settings), bundle, outputs, context)
        return product, ValidationReport.model_validate_json(context.store.read_bytes(product.report))

    return run


def report_of(caught):
    return ValidationReport.model_validate_json(Location(caught.value.report_uri).read_bytes())


def failed(caught):
    return [check.name for check in report_of(caught).failures]


def test_an_honest_export_passes_on_all_held_out_samples(validate, own_interpreter):
    product, report = validate(samples=labelled_samples(program()), min_metrics={"accuracy": 0.85})
    assert product.summary.passed
    assert product.summary.max_abs_error < 1e-5
    assert product.summary.agreement == 1.0
    assert product.summary.num_samples == NUM_SAMPLES
    assert product.summary.metrics["accuracy"] == pytest.approx(40 / 45)
    assert product.summary.metrics.keys() == set(METRICS["classification"])
    assert product.summary.compared_by == ("accuracy",)
    assert product.summary.latency_ms > 0
    (cost,) = report.footprint
    assert cost.load_ms > 0 and cost.peak_num_bytes > 0
    assert report.batch_sizes == (1, 8, 7)
    assert (report.samples.source, report.samples.labelled) == ("run", True)
    assert [entry.num_samples for entry in report.parity] == [45, 45, 45]
    assert report.quality[0].torch == report.quality[0].onnxruntime
    assert product.bundle_sha256 == report.bundle_sha256


def test_stale_weights_are_caught_and_the_report_says_where(validate):
    with pytest.raises(ValidationFailedError) as caught:
        validate(program(), exported=program(seed=1), samples=labelled_samples(program()))
    message, report = str(caught.value), report_of(caught)
    assert "CPUExecutionProvider, batch 1, output: parity: expected abs(onnx - torch) <= 1e-05" in message
    assert caught.value.report_uri in message
    worst = report.parity[0]
    assert worst.max_abs_error > 0.01
    assert worst.atol_needed > 0.01
    assert 0 <= worst.worst_sample < NUM_SAMPLES
    assert worst.num_beyond_tolerance > 400
    assert worst.agreement < 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.report_uri) == (message, caught.value.report_uri)


def test_a_model_that_lost_precision_is_caught(validate):
    with pytest.raises(ValidationFailedError) as caught:
        validate(program(Cnn), exported=program(HalfPrecision))
    assert any("parity" in name for name in failed(caught))
    assert report_of(caught).parity[0].max_abs_error < 0.01


def test_not_a_number_is_caught_even_where_both_agree(validate):
    samples = images()
    samples[7] = -1
    with pytest.raises(ValidationFailedError) as caught:
        validate(program(NotANumber), samples=npz(images=samples))
    assert failed(caught) == [f"CPUExecutionProvider, batch {n}, output: finite" for n in (1, 8, 7)]
    assert report_of(caught).parity[0].num_non_finite == 10


def test_without_samples_random_inputs_are_used_and_marked(validate):
    _, report = validate(program(TokensAndMask))
    assert report.samples.model_dump() == {
        "source": "random",
        "num_samples": 256,
        "num_available": 0,
        "labelled": False,
        "seed": 0,
        "sha256": None,
    }
    assert report.batch_sizes == (1, 4, 7)
    assert {entry.output for entry in report.parity} == {"scores", "lengths", "last"}
    by_output = {entry.output: entry for entry in report.parity}
    assert by_output["lengths"].max_abs_error == 0
    assert by_output["last"].worst_sample is None
    assert "256 random inputs" in render_markdown(report)


def test_quality_below_the_bound_fails(validate):
    with pytest.raises(ValidationFailedError, match=r"accuracy: expected at least 0.95; found 0.8889") as caught:
        validate(samples=labelled_samples(program()), min_metrics={"accuracy": 0.95})
    assert failed(caught) == ["CPUExecutionProvider: accuracy"]
    assert "**FAILED**" in render_markdown(report_of(caught))


def test_a_bound_that_nothing_can_be_measured_for_fails(validate):
    with pytest.raises(ValidationFailedError, match=r"accuracy: .*not measured"):
        validate(samples=npz(images=images()), min_metrics={"accuracy": 0.95})
    with pytest.raises(ValidationFailedError, match=r"mae: .*it is for regression; .* measured by accuracy, "):
        validate(samples=labelled_samples(program()), max_metrics={"mae": 0.1})
    with pytest.raises(ValidationFailedError, match=r"top_5_accuracy: .*too few classes .*log_loss"):
        validate(
            program(Binary),
            samples=npz(images=images(), labels=np.zeros(NUM_SAMPLES, dtype=int)),
            min_metrics={"top_5_accuracy": 0.5},
        )


def test_a_regression_is_measured_by_its_numbers_and_shown(validate, tmp_path):
    trained = program(Numbers)
    x = images()
    labels = logits(trained, x) + np.array([0.5, 0, -0.25])
    samples = npz(images=x, labels=labels)
    product, report = validate(trained, samples=samples, max_metrics={"mae": 0.2501}, min_metrics={"r2": -100})
    assert product.summary.metrics["mae"] == pytest.approx(0.25, abs=1e-5)
    assert product.summary.compared_by == ("rmse",)
    assert product.summary.agreement is None  # the largest of three numbers is no class
    assert report.problem == "regression" and report.classification is None
    assert report.regression.bias == pytest.approx(-0.25 / 3, abs=1e-5)
    markdown, page = render_markdown(report), render_page(report)
    for metric in METRICS["regression"]:
        assert f"| {metric} |" in markdown and f"<td>{metric}</td>" in page
    assert "135 values" in markdown and "answer (ONNX Runtime)" in page
    with pytest.raises(ValidationFailedError, match=r"mae: expected at most 0.2; found 0.2500") as caught:
        validate(trained, samples=samples, max_metrics={"mae": 0.2})
    assert failed(caught) == ["CPUExecutionProvider: mae"]


def test_one_score_a_sample_is_measured_as_two_classes(validate):
    trained = program(Binary)
    x = images()
    product, report = validate(
        trained,
        samples=npz(images=x, labels=(logits(trained, x)[:, 0] > 0).astype(int)),
        min_metrics={"f1_macro": 1, "accuracy": 1},
    )
    assert product.summary.metrics["accuracy"] == 1
    assert sum(map(sum, report.classification.matrix)) == NUM_SAMPLES and len(report.classification.matrix) == 2
    assert "Confusion matrix" in render_page(report)


def test_labels_that_nothing_answers_are_said_in_the_report(validate):
    _, report = validate(samples=npz(images=images(), labels=np.full(NUM_SAMPLES, 10)))
    for shown in (render_markdown(report), render_page(report)):
        assert "Not measured: the labels lie in 10..10; expected classes 0..9" in shown


def test_a_provider_that_is_not_there_is_named_with_those_that_are(validate):
    with pytest.raises(InvalidInputError, match=r"TensorrtExecutionProvider is not in .*CPUExecutionProvider"):
        validate(providers=("CPUExecutionProvider", "TensorrtExecutionProvider"))


def test_a_fixed_batch_is_compared_at_that_batch_only(validate):
    fixed = program(dynamic=False)
    product, report = validate(fixed, dynamic_batch=False, samples=npz(images=images(11)))
    assert report.batch_sizes == (8,)
    assert report.parity[0].num_samples == 11
    assert product.summary.latency_ms is None  # nothing was timed at a batch of one
    with pytest.raises(ValidationFailedError, match="batch 3: runs") as caught:
        validate(fixed, dynamic_batch=False, batch_sizes=(3, 8))
    assert failed(caught) == ["CPUExecutionProvider, batch 3: runs"]


def test_samples_that_do_not_fit_are_told_all_their_problems(validate):
    wrong = npz(images=images().astype(np.float64), labels=np.array(["a", "b", "c"]))
    with pytest.raises(ValidationFailedError) as caught:
        validate(samples=wrong)
    message = str(caught.value)
    assert "'images': expected float32 ['num_samples', 1, 8, 8]; found float64 [45, 1, 8, 8]" in message
    assert (
        "labels: expected classes, integers [num_samples], or numbers, floats shaped like an output; found str"
        in message
    )
    assert "{'images': 45, 'labels': 3}" in message
    nan = np.full(NUM_SAMPLES, np.nan)
    with pytest.raises(ValidationFailedError, match=r"labels: expected finite numbers; found 45 that are NaN"):
        validate(samples=npz(images=images(), labels=nan))
    with pytest.raises(ValidationFailedError, match=r"'images' is missing: .*found pixels"):
        validate(samples=npz(pixels=images()))
    with pytest.raises(ValidationFailedError, match=r"not an \.npz file"):
        validate(samples=b"garbage")


def test_at_most_max_samples_are_used_spread_over_all(validate):
    _, report = validate(samples=npz(images=images()), max_samples=10)
    assert (report.samples.num_samples, report.samples.num_available) == (10, 45)
    assert spread(45, 10).tolist() == [0, 4, 9, 13, 18, 22, 27, 31, 36, 40]
    assert spread(3, 10).tolist() == [0, 1, 2]


def test_the_verdict_is_the_same_for_the_same_proof_and_another_for_another_gate(validate):
    verdicts = [
        validate(samples=npz(images=images()), **settings)[0].verdict_sha256 for settings in ({}, {}, {"atol": 1e-4})
    ]
    assert verdicts[0] == verdicts[1] != verdicts[2]


def test_the_key_follows_settings_bundle_and_outputs(tmp_path):
    context = make_context(tmp_path)
    bundle = put_bundle(context, tmp_path, program())
    outputs = put_files(context, tmp_path / "a", {"model.pt2": b"1"})
    other = put_files(context, tmp_path / "b", {"model.pt2": b"2"})
    variants = [(OrtValidation(), outputs), (OrtValidation(rtol=0.1), outputs), (OrtValidation(), other)]
    keys = {VALIDATE.key(validation_components(s, bundle, o, None, context.store)).sha256 for s, o in variants}
    assert len(keys) == 3

    def components(settings, bundle):
        return validation_components(settings, bundle, outputs, None, context.store)

    asked = [{}, {"max_metrics": {"mae": 1}}, {"problem_type": "regression"}, {"champion_metrics": ["rmse"]}]
    keys = {VALIDATE.key(components(OrtValidation(**s), bundle)).sha256 for s in asked}
    assert len(keys) == 4
    described = [OnnxExport(inputs=[{"name": "images", "shape": ["batch"], "maximum": most}]) for most in (1, 2)]
    bundles = [bundle.model_copy(update={"settings": settings}) for settings in described]
    keys = {VALIDATE.key(components(OrtValidation(), b)).sha256 for b in [bundle, *bundles]}
    assert len(keys) == 3  # the same bundle, but random samples are drawn within another range
    assert {"library:scikit-learn", "code:specs/quality.py"} <= set(VALIDATE.key({}).components)


def test_the_key_follows_the_curves_of_the_page_and_not_the_times_of_the_records(tmp_path):
    context = make_context(tmp_path)
    bundle = put_bundle(context, tmp_path, program())
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": b"1"})

    def key(name, losses, time):
        lines = [
            json.dumps({"kind": "scalar", "name": "loss", "value": loss, "step": n, "time": time + n})
            for n, loss in enumerate(losses)
        ]
        records = put_files(context, tmp_path / name, {"rank-00000.jsonl": "\n".join(lines).encode()})
        curves = digest_curves(read_curves(records, context.store))
        return VALIDATE.key(
            validation_components(OrtValidation(), bundle, outputs, None, context.store, curves=curves)
        ).sha256

    assert key("a", [3, 2, 1], time=0) == key("b", [3, 2, 1], time=50)
    assert key("c", [3, 2, float("nan")], time=0) not in (key("d", [3, 2, 1], time=0), key("e", [3, 2, 2], time=0))
