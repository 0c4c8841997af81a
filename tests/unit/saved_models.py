"""Training projects that leave models behind in every way that first-generation scripts did, and the export of them.

Each is made by running a script, as training would: a module that the script pickles then really is of its
``__main__``.
"""

import textwrap
from pathlib import Path

from tests.unit.forked import run_script
from tests.unit.onnx_models import make_context, put_files
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.validate import validate_model

NETWORK = '''
import torch
from torch import nn

class Net(nn.Module):
    """Batch normalization and dropout: its answers depend on its mode."""

    def __init__(self, hidden=16):
        super().__init__()
        self.first = nn.Linear(4, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

def trained(hidden=16):
    torch.manual_seed(0)
    model = Net(hidden)
    model(torch.randn(64, 4) * 3 + 1)  # moves the running statistics away from their defaults
    return model
'''

SAMPLES = """
import numpy as np
np.savez("outputs/validation_samples.npz", x=np.random.default_rng(0).normal(size=(300, 4)).astype("float32"))
"""


class Project:
    """A source directory whose script was run, and what it left."""

    def __init__(self, folder: Path, files: dict[str, str], *, samples: bool = True) -> None:
        self.folder = folder
        self.context = make_context(folder)
        source = folder / "source"
        for name, text in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(textwrap.dedent(text))
        run = folder / "run"
        (run / "outputs").mkdir(parents=True)
        script = (source / "train.py").read_text() + (SAMPLES if samples else "")
        (folder / "script.py").write_text(f"import sys; sys.path.insert(0, {str(source)!r})\n{script}")
        run_script(folder / "script.py", run)
        self.outputs = self.context.store.put_tree(run / "outputs")
        self.source = self.context.store.put_tree(source)

    def export(self, **settings):
        return export_onnx(OnnxExport(**settings), self.outputs, self.context, source=self.source)

    def validate(self, bundle, **settings):
        product = validate_model(OrtValidation(**settings), bundle, self.outputs, self.context, source=self.source)
        return product, ValidationReport.model_validate_json(self.context.store.read_bytes(product.report))


def project(folder, script, *, samples=True, **files):
    """A project of a script and more files, by their names with ``__`` for a slash, without the ``.py``."""
    modules = {f"{name.replace('__', '/')}.py": text for name, text in files.items()}
    return Project(folder, {"train.py": script, **modules}, samples=samples)


__all__ = ["NETWORK", "Project", "project", "put_files"]
