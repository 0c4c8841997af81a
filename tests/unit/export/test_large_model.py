"""A model above the 2 GB that a protobuf message can hold."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.onnx_models import make_context, npz
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.validate import validate_model

NUM_ROWS = 2_200_000


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(NUM_ROWS, 256)
        self.head = nn.Linear(256, 2)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


@pytest.mark.slow
@pytest.mark.skipif("SLOW_TESTS" not in os.environ, reason="SLOW_TESTS is not set: 20 GB of disk")
def test_weights_above_two_gigabytes_lie_beside_the_model(tmp_path):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    tokens = np.random.default_rng(0).integers(0, NUM_ROWS, (8, 3))
    example = (torch.from_numpy(tokens[:4]),)
    program = torch.export.export(Large().eval(), example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, outputs / "model.pt2")
    del program
    (outputs / "validation_samples.npz").write_bytes(npz(tokens=tokens))
    context = make_context(tmp_path)
    stored = context.store.put_tree(outputs)
    (outputs / "model.pt2").unlink()
    bundle = export_onnx(OnnxExport(), stored, context)
    sizes = {entry.path: entry.num_bytes for entry in context.store.list_tree(bundle.bundle).entries}
    assert sizes["model.onnx.data"] > 2**31 > sizes["model.onnx"]
    product = validate_model(OrtValidation(batch_sizes=(1, 5)), bundle, stored, context)
    assert product.summary.passed and product.summary.num_samples == 8
