"""The metrics of quality against their definitions, and what labels ask of a model."""

import re
import warnings

import numpy as np
import pytest
from pydantic import ValidationError

from trainyard import OrtValidation
from trainyard.tasks.models.signature import ModelSignature
from trainyard.tasks.specs.quality import LOWER_IS_BETTER, METRICS
from trainyard.tasks.validation.classification import classify
from trainyard.tasks.validation.quality import are_probabilities, goal_of, probabilities, quality_figures
from trainyard.tasks.validation.regression import residuals


def giving(*outputs):
    """The signature of a model with outputs of these shapes, beside the batch."""
    tensors = [{"name": f"y{n}", "dtype": "float32", "shape": ["batch", *shape]} for n, shape in enumerate(outputs)]
    inputs = [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}]
    return ModelSignature.model_validate({"inputs": inputs, "outputs": tensors, "batch_size": 4})


def values(signature, labels, torch, onnx=None, told=None):
    goal = goal_of(signature, labels, told)
    figures = quality_figures(goal, labels, (torch, torch if onnx is None else onnx), "CPU")
    return {figure.metric: figure for figure in figures}


LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 2, 2, 2])
LOGITS = (np.eye(3)[PREDICTED] * 2 - 1).astype(np.float32)


def test_a_classifier_is_measured_by_the_definitions():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = values(giving((3,)), LABELS, LOGITS)
    precision, recall = np.array([1, 1 / 2, 2 / 3]), np.array([3 / 4, 1 / 2, 1])
    right, wrong = np.exp(1) / (np.exp(1) + 2 * np.exp(-1)), np.exp(-1) / (np.exp(1) + 2 * np.exp(-1))
    assert {name: figure.onnxruntime for name, figure in found.items()} == {
        "accuracy": 6 / 8,
        "balanced_accuracy": pytest.approx(recall.mean()),
        "precision_macro": pytest.approx(precision.mean()),
        "recall_macro": pytest.approx(recall.mean()),
        "f1_macro": pytest.approx((2 * precision * recall / (precision + recall)).mean()),
        "log_loss": pytest.approx(-(6 * np.log(right) + 2 * np.log(wrong)) / 8),
    }
    assert all(figure.difference == 0 and figure.num_samples == 8 for figure in found.values())


def test_torch_and_onnx_runtime_are_measured_apart():
    other = LOGITS.copy()
    other[0] = other[0, ::-1]
    figure = values(giving((3,)), LABELS, LOGITS, other)["accuracy"]
    assert (figure.torch, figure.onnxruntime, figure.difference) == (6 / 8, 5 / 8, -1 / 8)


def test_the_five_best_of_more_classes():
    scores = np.tile(np.arange(8, dtype=np.float32), (8, 1))  # 7, 6, 5, 4, 3 are the five best of every sample
    assert values(giving((8,)), np.arange(8), scores)["top_5_accuracy"].onnxruntime == 5 / 8


def test_probabilities_are_told_from_logits():
    given = probabilities(LOGITS, False)
    assert not are_probabilities(LOGITS) and are_probabilities(given)
    as_logits, as_given = (values(giving((3,)), LABELS, scores)["log_loss"] for scores in (LOGITS, given))
    assert as_logits.onnxruntime == pytest.approx(as_given.onnxruntime)
    assert not are_probabilities(np.array([[0.2], [1.7]])) and are_probabilities(np.array([0.2, 0.7]))


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("kind", [np.int64, np.bool_])
def test_one_score_a_sample_is_of_two_classes(shape, kind):
    labels = np.array([0, 1, 1, 0]).astype(kind)
    logits = np.array([-800.0, 2.0, -1.0, 800.0]).reshape(4, *shape)
    found = values(giving(shape), labels, logits)
    assert found["accuracy"].onnxruntime == 1 / 2
    chances = probabilities(logits, False)[:, 1]
    assert chances.tolist() == pytest.approx([0, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1)), 1])
    assert 0 < found["log_loss"].onnxruntime < np.inf  # although one sample is taken for impossible


def test_labels_in_a_column_are_counted_once_each():
    shown = classify(LABELS[:, None], LOGITS)
    assert shown.matrix == ((3, 1, 0), (0, 1, 1), (0, 0, 2))
    assert (shown.coverage[-1], shown.accuracy[-1], shown.scores_are) == (1, 6 / 8, "logits")


def test_numbers_are_measured_by_how_far_they_are_off():
    labels = np.array([1.0, 2.0, 3.0, 6.0])
    answers = np.array([[1.0], [2.5], [2.0], [6.0]], dtype=np.float32)
    found = values(giving((1,)), labels, answers)
    assert {name: figure.onnxruntime for name, figure in found.items()} == {
        "mae": pytest.approx(1.5 / 4),
        "mse": pytest.approx(1.25 / 4),
        "rmse": pytest.approx(np.sqrt(1.25 / 4)),
        "r2": pytest.approx(1 - 1.25 / 14),
    }
    off = residuals(labels, answers)
    assert (off.num_values, off.bias, off.max_abs) == (4, -0.125, 1.0)
    assert off.predicted == (1.0, 2.5, 2.0, 6.0)


def test_every_metric_that_can_be_asked_for_is_measured():
    rng = np.random.default_rng(0)
    classes = values(giving((6,)), np.arange(30) % 6, rng.normal(size=(30, 6)))
    numbers = values(giving((6,)), rng.normal(size=(30, 6)), rng.normal(size=(30, 6)))
    assert set(classes) == set(METRICS["classification"]) and set(numbers) == set(METRICS["regression"])


INTEGERS, FLOATS = np.array([0, 1, 2, 2]), np.array([0.5, 1, 2, 2])


@pytest.mark.parametrize(
    ("outputs", "labels", "told", "expected"),
    [
        ([(3,)], INTEGERS, None, ("classification", 0)),
        ([(7, 4), (), (3,)], INTEGERS, None, ("classification", 2)),
        ([(1,)], INTEGERS % 2, None, ("classification", 0)),
        ([(1,)], INTEGERS, None, ("regression", 0)),  # counts
        ([(1,)], INTEGERS % 2, "regression", ("regression", 0)),
        ([(3,), (1,)], FLOATS, None, ("regression", 1)),
        ([("width", 2)], np.ones((4, 5, 2)), None, ("regression", 0)),
        ([(3,)], None, "regression", ("regression", None)),
        ([(3,)], None, None, (None, None)),
    ],
)
def test_the_labels_say_what_is_measured(outputs, labels, told, expected):
    goal = goal_of(giving(*outputs), labels, told)
    assert (goal.problem, goal.output) == expected


@pytest.mark.parametrize(
    ("outputs", "labels", "told", "words"),
    [
        ([(3,)], INTEGERS + 1, None, r"labels lie in 1\.\.3; expected classes 0\.\.2"),
        ([(3,)], INTEGERS - 1, None, r"labels lie in -1\.\.1; expected"),
        ([(3,)], FLOATS, None, r"no output of floats is shaped like the labels, \[4\]"),
        ([(3,)], FLOATS, "classification", r"classes are integers \[num_samples\]; the labels are float64 \[4\]"),
        ([(7, 4)], INTEGERS, "classification", "no output holds a score a class"),
    ],
)
def test_labels_that_nothing_answers_are_explained(outputs, labels, told, words):
    goal = goal_of(giving(*outputs), labels, told)
    assert goal.output is None
    assert re.search(words, goal.note)


def test_the_classes_of_a_regression_are_none():
    by_labels, told = goal_of(giving((3,), (2,)), np.ones((4, 3)), None), goal_of(giving((3,)), None, "regression")
    assert [by_labels.has_classes(n) for n in range(2)] == [False, True]
    assert not told.has_classes(0) and goal_of(giving((3,)), None, None).has_classes(0)


def test_answers_that_are_no_numbers_are_not_measured():
    broken = LOGITS.copy()
    broken[3, 1] = np.nan
    assert values(giving((3,)), LABELS, LOGITS, broken) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_metrics": {"f1": 0.9}}, "min_metrics: 'f1' cannot be measured; known: classification: accuracy, "),
        ({"min_metrics": {"mae": 0.1}}, "mae is better the lower it is; put its bound into max_metrics"),
        ({"max_metrics": {"accuracy": 1}}, "accuracy is better the higher it is; put its bound into min_metrics"),
        ({"min_metrics": {"accuracy": 1}, "max_metrics": {"mae": 1}}, "one model cannot be measured by both"),
        (
            {"problem_type": "regression", "champion_metrics": ["accuracy"]},
            "champion_metrics: accuracy is for classification, but problem_type is 'regression'",
        ),
        ({"champion_metrics": ["nothing"]}, "Input should be 'accuracy'"),
    ],
)
def test_metrics_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValidationError) as caught:
        OrtValidation(**settings)
    assert words in str(caught.value)


def test_all_that_is_wrong_with_metrics_is_said_at_once():
    with pytest.raises(ValidationError) as caught:
        OrtValidation(min_metrics={"f1": 1, "rmse": 1}, max_metrics={"r2": 1})
    assert all(words in str(caught.value) for words in ("'f1'", "rmse is better", "r2 is better"))


def test_the_form_offers_the_kinds_of_model_and_every_metric():
    schema = OrtValidation.model_json_schema()["properties"]
    assert schema["problem_type"]["enum"] == ["auto", "classification", "regression"]
    for names in METRICS.values():
        for name in names:
            field = "max_metrics" if name in LOWER_IS_BETTER else "min_metrics"
            assert name in schema[field]["description"]
