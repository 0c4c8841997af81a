"""Bundles and the verdicts on them, as validation gives them, and versions made of them."""

import time

from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, ValidatedModel
from trainyard.tasks.models.bundle import BundleDescription, describe_files, write_description
from trainyard.tasks.registry.register import register_model
from trainyard.tasks.registry.versions import read_manifest
from trainyard.tasks.specs.results import ValidationSummary

LINEAGE = Lineage(
    source_sha256="a" * 64,
    datasets={"s3://data/digits": "b" * 64},
    arguments=("--data-dir", "s3://data/digits", "--epochs", "3"),
    topology="1x2 mpi",
    environment={"torch": "2.13.0"},
    metrics={"accuracy": 0.97},
    pipeline_run="run-1",
)


def proven(context, folder, passed=True, weights=b"weights", champion_version=None, **summary):
    """A bundle and the verdict on it."""
    folder.mkdir(parents=True)
    files = {"model.onnx": b"model" * 1000, "model.onnx.data": weights * 1000, "signature.json": b"{}"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    description = BundleDescription(
        files=describe_files(folder), kind="program", was_training=False, opset=20, attempts=(), provenance={}
    )
    write_description(description, folder)
    bundle = OnnxBundle(bundle=context.store.put_tree(folder), opset=20, model_file="model.pt2")
    validated = ValidatedModel(
        report=context.store.put_bytes(b'{"checks": []}'),
        bundle_sha256=bundle.bundle.sha256,
        verdict_sha256="c" * 64,
        summary=ValidationSummary(
            passed=passed, max_abs_error=0, max_rel_error=0, agreement=1, num_samples=1, latency_ms=1, **summary
        ),
        page=context.store.put_bytes(b"<html>"),
        champion_version=champion_version,
    )
    return bundle, validated


def registered(context, tmp_path, accuracy=None, samples="d" * 64, **changes):
    """Register a version with weights of its own; gives its number."""
    summary = changes if accuracy is None else {"metrics": {"accuracy": accuracy}, "samples_sha256": samples}
    folder = tmp_path / f"bundle-{time.monotonic_ns()}"
    bundle, validated = proven(context, folder, weights=folder.name.encode(), **{**summary, **changes})
    return register_model("digits", bundle, validated, LINEAGE, context).version


def version_folder(context, version):
    """Where the files of a version are."""
    folder = read_manifest(context.store, "digits", version).folder
    return (context.store.root / f"models/digits/{version}/{folder}").local_path
