"""ONNX Runtime: its version and its execution providers."""

import json


def main() -> None:
    """Print them."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    print(json.dumps({"version": onnxruntime.__version__, "providers": providers}))


if __name__ == "__main__":
    main()
