"""torch: its version, its CUDA version and the devices that it sees."""

import json


def main() -> None:
    """Print them."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices}))


if __name__ == "__main__":
    main()
