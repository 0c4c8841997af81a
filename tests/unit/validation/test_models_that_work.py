"""The kinds of model that must go through export and validation, each from a saved program."""

import io
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.onnx_models import Cnn, TokensAndMask, export_program, make_context, npz, program, put_files
from trainyard.tasks.errors import ExportError
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.validate import validate_model

pytestmark = pytest.mark.usefixtures("forked_models")


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def forward(self, features):
        return super().forward(features)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.cells = kind(8, 12, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, tokens):
        return self.head(self.cells(self.embedding(tokens))[0][:, -1])


class Lstm(Recurrent):
    def __init__(self):
        super().__init__(nn.LSTM)


class Transformer(nn.Module):
    """A padding mask, integer inputs, any sequence length."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens, mask):
        hidden = self.encoder(self.embedding(tokens), src_key_padding_mask=~mask)
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weights).sum(1) / weights.sum(1).clamp(min=1))


class TwoIntoTwo(nn.Module):
    """Two inputs of different shapes, two outputs as a tuple."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 4), nn.Linear(7, 4)

    def forward(self, left, right):
        both = self.left(left) + self.right(right)
        return both, both.relu().sum(dim=1)


FEW = 4  # steps of recurrent cells, which torch.export unrolls at a cost each
TOKENS = np.random.default_rng(0).integers(0, 20, (40, 9))
MASK = np.arange(9) < np.random.default_rng(1).integers(1, 10, (40, 1))
PADDED = {"tokens": TOKENS, "mask": MASK}

# model, inputs of the run's samples, axes of any size beside the batch
TABLE = {
    "cnn": (Cnn, {"images": np.random.default_rng(2).random((40, 1, 8, 8), dtype=np.float32)}, {}),
    "mlp": (Mlp, {"features": np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)}, {}),
    # torch.export unrolls cells: with any length only through TorchScript
    "lstm": (Lstm, {"tokens": TOKENS[:, :FEW]}, {}),
    "gru": (Recurrent, {"tokens": TOKENS[:, :FEW]}, {}),
    "transformer": (Transformer, PADDED, {"tokens": {1: "sequence"}, "mask": {1: "sequence"}}),
    "two into two": (
        TwoIntoTwo,
        {
            name: np.random.default_rng(4).normal(size=(40, n)).astype(np.float32)
            for name, n in (("left", 5), ("right", 7))
        },
        {},
    ),
    "outputs by name": (TokensAndMask, {"tokens": TOKENS[:, :FEW] % 12, "mask": MASK[:, :FEW]}, {}),
}


@cache
def trained(name, any_length=True):
    """The program of a row; once a session."""
    kind, inputs, axes = TABLE[name]
    return saved(kind, inputs, axes if any_length else {})


def saved(kind, inputs, axes):
    """A program, exported from the first samples."""
    torch.manual_seed(0)
    dims = {"batch": torch.export.Dim("batch"), "sequence": torch.export.Dim("sequence", max=512)}
    shapes = [{0: dims["batch"], **{axis: dims[n] for axis, n in axes.get(name, {}).items()}} for name in inputs]
    example = tuple(torch.from_numpy(array[:4]) for array in inputs.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(kind().eval(), example, dynamic_shapes=tuple(shapes))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", TABLE)
def test_it_goes_through(tmp_path, name):
    _, inputs, axes = TABLE[name]
    context, data = make_context(tmp_path), trained(name)
    bundle = export_program(context, tmp_path, data, dynamic_axes=axes)
    outputs = put_files(context, tmp_path / "outputs", {"model.pt2": data, "validation_samples.npz": npz(**inputs)})
    product = validate_model(OrtValidation(), bundle, outputs, context)
    report = ValidationReport.model_validate_json(context.store.read_bytes(product.report))
    assert product.summary.passed and product.summary.num_samples == 40
    assert report.batch_sizes == (1, 4, 7)
    assert {entry.sizes.get("sequence") for entry in report.parity} == ({None, 5} if axes else {None})
    assert {entry.batch_size for entry in report.latency} == {1, 7}
    (cost,) = report.footprint
    assert cost.load_ms > 0 and cost.nodes["CPUExecutionProvider"] > 0


def test_a_program_saved_in_training_mode_is_refused(tmp_path):
    """Both runtimes would agree with each other: batch normalization over the batch is well defined in both."""
    context = make_context(tmp_path)
    with pytest.raises(ExportError, match=r"saved in training mode: batch_norm, dropout would act .*model.eval\(\)"):
        export_program(context, tmp_path, program(Cnn, training=True))


def test_an_axis_that_was_not_saved_dynamic_cannot_be_named(tmp_path):
    context, data = make_context(tmp_path), trained("gru")
    with pytest.raises(ExportError, match=r"axis 1 of tokens \('sequence'\): tokens \['batch', 4\]"):
        export_program(context, tmp_path, data, dynamic_axes={"tokens": {1: "sequence"}})
    with pytest.raises(ExportError, match=r"no input 'words'; inputs: tokens; input 'tokens' has no axis 4"):
        export_program(context, tmp_path / "b", data, dynamic_axes={"words": {1: "n"}, "tokens": {4: "n"}})
