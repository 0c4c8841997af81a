"""Small trained programs, each made once a session, and the outputs that a training script would leave."""

import io
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.export import exporter
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.specs.export import OnnxExport

NUM_SAMPLES = 45

torch.set_num_threads(1)  # with models this small, threads only wait for each other where cores are busy


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, images):
        return self.head(self.drop(self.body(images).flatten(1)))


class HalfPrecision(Cnn):
    """The same weights, rounded as float16 rounds."""

    def __init__(self):
        super().__init__()
        self.load_state_dict({k: v.half().to(v.dtype) for k, v in self.state_dict().items()})


class NotANumber(Cnn):
    """NaN for samples whose pixels are negative on average."""

    def forward(self, images):
        return super().forward(images) + torch.log(images.mean(dim=(1, 2, 3)))[:, None] * 0


class TokensAndMask(nn.Module):
    """Integer and boolean inputs; several outputs by name, one of them integers, one without samples first."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)

    def forward(self, tokens, mask):
        hidden, (last, _) = self.lstm(self.embedding(tokens) * mask[..., None])
        return {"scores": hidden.mean(1), "lengths": mask.sum(1), "last": last}


@lru_cache
def program(kind=Cnn, *, seed=0, dynamic=True, training=False):
    """The bytes of ``model.pt2``."""
    torch.manual_seed(seed)
    model = kind().train(training)
    batch = {0: torch.export.Dim("batch")}
    if kind is TokensAndMask:
        example = (torch.randint(0, 12, (4, 6)), torch.rand(4, 6) > 0.3)
    else:
        example = (torch.rand(8, 1, 8, 8),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the LSTM's flattened weights, which do no harm
        exported = torch.export.export(model, example, dynamic_shapes=(batch,) * len(example) if dynamic else None)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


def logits(data, images):
    """What a saved program gives."""
    with torch.no_grad():
        return torch.export.load(io.BytesIO(data)).module()(torch.from_numpy(images)).numpy()


def images(num_samples=NUM_SAMPLES):
    return np.random.default_rng(3).random((num_samples, 1, 8, 8), dtype=np.float32)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def labelled_samples(data, num_wrong=5):
    """Samples that a program classifies right, but for the first few."""
    x = images()
    labels = logits(data, x).argmax(1)
    labels[:num_wrong] = (labels[:num_wrong] + 1) % 10
    return npz(images=x, labels=labels)


def make_context(tmp_path):
    return StageContext(store_url=str(tmp_path / "store"), home=tmp_path / "home")


def put_files(context, folder, files):
    """A tree of the given files, by path."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    folder.mkdir(exist_ok=True)
    return context.store.put_tree(folder)


def export_program(context, tmp_path, data, **settings):
    """The bundle of a program."""
    outputs = put_files(context, tmp_path / "exported-outputs", {"model.pt2": data})
    return export_onnx(OnnxExport(**settings), outputs, context)


def exported(data, dynamic_batch):
    """The bundle of a program and its files; exported once a session, and once more where weights lie elsewhere."""
    return _exported(data, dynamic_batch, exporter.MAX_INLINE_BYTES)


@lru_cache
def _exported(data, dynamic_batch, max_inline_bytes):
    with TemporaryDirectory() as folder:
        context = make_context(Path(folder))
        bundle = export_program(context, Path(folder), data, dynamic_batch=dynamic_batch)
        paths = [entry.path for entry in context.store.list_tree(bundle.bundle).entries]
        return bundle, {path: context.store.read_entry(bundle.bundle, path) for path in paths}


def put_bundle(context, tmp_path, data, dynamic_batch=True):
    """The bundle of a program, in another store."""
    bundle, files = exported(data, dynamic_batch)
    with TemporaryDirectory(dir=tmp_path) as folder:
        return bundle.model_copy(update={"bundle": put_files(context, Path(folder), files)})
