"""Export: the trained program becomes a checked ONNX bundle."""
