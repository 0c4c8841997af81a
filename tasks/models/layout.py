"""Names of the files of a run's outputs, of an ONNX bundle and of a registered version."""

SAMPLES_FILE = "validation_samples.npz"
"""Held-out samples in the run's outputs: one array an input of the model, and perhaps ``labels``."""

LABELS_ARRAY = "labels"
"""The array of the samples file that is no input."""

EXAMPLE_FILE = "example_inputs.npz"
"""An example batch in the run's outputs: one array a parameter of ``forward``."""

MODEL_FILE = "model.onnx"
"""The ONNX model of a bundle; weights above 2 GB lie beside it as external data (``model.onnx.data``)."""

EXTERNAL_DATA_FILE = f"{MODEL_FILE}.data"
"""Weights that no ONNX file can hold."""

SIGNATURE_FILE = "signature.json"
"""A ``ModelSignature``, beside the model."""

BUNDLE_FILE = "bundle.json"
"""A ``BundleDescription``, beside the model: what belongs together, and how it was made."""

LABELS_FILE = "labels.json"
"""Names of the classes, in a bundle: a JSON list."""

PREPROCESSING_FILE = "preprocessing.md"
"""What must be done to raw data, in a bundle: in words."""

REPORT_FILE = "report.json"
"""The validation report of a registered version."""

REPORT_PAGE = "report.html"
"""The same for people."""

MANIFEST_FILE = "manifest.json"
"""A ``ModelManifest``; a registered version exists when it is there."""
