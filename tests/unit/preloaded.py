"""What the process that others are forked from has done before: imported everything, and exported something tiny.

See ``forked``. The exporters import much of torch only when they are called. One thread only: no fork may lose another.
"""

import io
import logging
import os
import warnings

os.environ["OMP_NUM_THREADS"] = "1"

import onnxruntime  # noqa: F401 - for the processes to come
import torch

import trainyard.tasks.export.exporter
import trainyard.tasks.models.loading
import trainyard.tasks.models.serving  # noqa: F401 - likewise

torch.set_num_threads(1)
logging.disable()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model, example = torch.nn.Linear(2, 2).eval(), (torch.zeros(2, 2),)
    dims = ({0: torch.export.Dim("batch")},)
    for strict in (False, True):
        program = torch.export.export(model, example, dynamic_shapes=dims, strict=strict)
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    torch.onnx.export(model, example, io.BytesIO(), dynamo=False)
logging.disable(logging.NOTSET)
