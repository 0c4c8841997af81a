"""The report for people: one file that shows everything and needs nothing."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.classification import classify
from trainyard.tasks.validation.curves import read_curves
from trainyard.tasks.validation.figures import SamplesUsed
from trainyard.tasks.validation.page import render_page
from trainyard.tasks.validation.pictures import pictures_of
from trainyard.tasks.validation.rendering import render_markdown
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.samples import Samples

NUM_SAMPLES = 12
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def report():
    """As ``validate_model`` makes it, of a classifier of images."""
    labels = np.arange(NUM_SAMPLES) % 3
    parity = {
        "provider": "CPUExecutionProvider",
        "batch_size": 7,
        "output": HOSTILE,
        "num_samples": NUM_SAMPLES,
        "max_abs_error": 3e-6,
        "mean_abs_error": 1e-7,
        "max_rel_error": 1e-5,
        "mean_rel_error": 1e-6,
        "worst_sample": 20,
        "num_beyond_tolerance": 0,
        "num_non_finite": 0,
        "atol_needed": 0,
        "agreement": 1,
        "histogram": [3] * 14,
        "worst": [
            {"output": "y", "index": 20, "max_abs_error": 3e-6, "torch_class": 1, "onnx_class": 1, "label": 2},
            {"output": "y", "index": 4, "max_abs_error": 2e-6},
        ],
    }
    quality = {"provider": "CPUExecutionProvider", "num_samples": NUM_SAMPLES, "torch": 0.9, "onnxruntime": 0.8}
    return ValidationReport.model_validate(
        {
            "bundle_sha256": "a" * 64,
            "outputs_sha256": "b" * 64,
            "model_file": f"{HOSTILE}.pt2",
            "model_num_bytes": 3 << 20,
            "settings": OrtValidation(),
            "tolerances": [{"dtype": "float32", "atol": 1e-5, "rtol": 1e-4, "source": "a book"}],
            "samples": {"source": "run", "num_samples": NUM_SAMPLES, "num_available": 99, "labelled": True},
            "batch_sizes": [7],
            "checks": [
                {"name": "good one", "passed": True, "expected": "e", "found": "f"},
                {"name": "bad one", "passed": False, "expected": "e", "found": HOSTILE},
            ],
            "parity": [parity],
            "quality": [
                {**quality, "metric": metric, "difference": -0.1} for metric in ("accuracy", "f1_macro", "log_loss")
            ],
            "champion": [
                {"version": 3, "metric": m, "num_samples": 12, "champion": 0.7, "challenger": 0.8, "decides": d}
                for m, d in (("accuracy", True), ("log_loss", False))
            ],
            "latency": [
                {
                    "provider": "CPUExecutionProvider",
                    "batch_size": 1,
                    "num_calls": 9,
                    "onnxruntime_p50_ms": 0.5,
                    "onnxruntime_p95_ms": 0.75,
                    "torch_p50_ms": 1,
                    "torch_p95_ms": 2,
                }
            ],
            "footprint": [
                {
                    "provider": "CPUExecutionProvider",
                    "load_ms": 12.5,
                    "peak_num_bytes": 5 << 20,
                    "nodes": {"CPUExecutionProvider": 4},
                }
            ],
            "problem": "classification",
            "classification": classify(labels, np.eye(3)[labels]),
            "labels": ["cat", "dog", f"{HOSTILE}"],
            "versions": {"torch": "2"},
        }
    )


class Seen(HTMLParser):
    """Tags, addresses and words of a page."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.words = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def picture_samples():
    images = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    used = SamplesUsed(source="run", num_samples=2, num_available=99, labelled=True)
    return Samples({"images": images}, None, np.array([4, 20]), used)


def test_the_page_shows_every_figure_and_needs_no_network(report):
    page = Seen(render_page(report, {"loss": [(0, 2.0), (1, 1.0)]}, pictures_of(picture_samples(), report)))
    for words in (
        "1 of 2 checks failed",
        "bad one",
        "a book",  # where the tolerance comes from
        "#20",
        "torch dog, ONNX dog, true <script>",
        "#4",
        "f1_macro",
        "-1.00e-01",
        "version 3",
        "decides",
        "Confusion matrix.",
        "read as probabilities",
        "12.5 ms",
        "5.0 MiB",
        "0.750 ms",
        "2,000",  # samples per second
        "loss",
        "3.0 MiB",
    ):
        assert words in page.text, words
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert all(address.startswith(("data:image/png", "#")) for address in page.addresses)


def test_the_same_figures_are_the_same_page(report):
    assert render_page(report) == render_page(report)


def test_the_markdown_shows_them_too(report):
    text = render_markdown(report)
    for words in (
        "# Validation FAILED (1 of 2 checks)",
        "float32: atol 1e-05, rtol 0.0001 (a book)",
        "| f1_macro | 0.9000 | 0.8000 | -1.00e-01 |",
        "| version 3 | accuracy | 0.7000 | 0.8000 | decides |",
        "| CPUExecutionProvider | 12.5 | 5,242,880 | 4 in CPUExecutionProvider |",
        "0.500 / 0.750",
    ):
        assert words in text, words


def test_curves_are_read_from_what_rank_0_logged(tmp_path):
    store = ArtifactStore(str(tmp_path / "store"))
    points = [{"kind": "scalar", "name": "loss", "step": n, "value": v} for n, v in enumerate([2.0, "nan", 1.0])]
    other = [{"kind": "scalar", "name": "once", "step": 0, "value": 1.0}, {"kind": "start", "rank": 0}]
    (tmp_path / "records").mkdir()
    lines = [json.dumps(record) for record in [*points, *other]]
    (tmp_path / "records" / "rank-00000.jsonl").write_text("\n".join([*lines, '{"kind": "sca']))
    curves = read_curves(store.put_tree(tmp_path / "records"), store)
    assert list(curves) == ["loss"]
    assert curves["loss"][0] == (0.0, 2.0) and np.isnan(curves["loss"][1][1])
    assert read_curves(None, store) == {}
