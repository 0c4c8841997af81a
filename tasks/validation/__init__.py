"""Validation: ONNX Runtime must give the trained model's answers."""
