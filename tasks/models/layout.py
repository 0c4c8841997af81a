"""Names of the files of a run's outputs, of an ONNX bundle and of a registered version."""

PROGRAM_SUFFIX = ".pt2"
"""Ending of a program that ``torch.export.save`` wrote."""

SAMPLES_FILE = "validation_samples.npz"
"""Held-out samples in the run's outputs: one array an input of the model, and perhaps ``labels``."""

MODEL_FILE = "model.onnx"
"""The ONNX model of a bundle; weights above 2 GB lie beside it as external data (``model.onnx.data``)."""

SIGNATURE_FILE = "signature.json"
"""A ``ModelSignature``, beside the model."""

REPORT_FILE = "report.json"
"""The validation report of a registered version."""

MANIFEST_FILE = "manifest.json"
"""A ``ModelManifest``; a registered version exists when it is there."""
