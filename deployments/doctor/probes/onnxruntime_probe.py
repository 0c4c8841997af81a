"""ONNX Runtime: its version and its execution providers."""

import json

import onnxruntime

print(json.dumps({"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}))
