"""Write scikit-learn's handwritten digits into a datastore, once: ``prepare_digits.py --to .data/digits``.

1,797 real images of 8 by 8 pixels (UCI "Optical Recognition of Handwritten Digits"; they ship inside
scikit-learn, so nothing is downloaded), as two files:

    images.npy   float32 [1797, 1, 8, 8], grey values from 0 to 1
    labels.npy   int64   [1797], the digit
"""

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

import fsspec.core

FILES = ("images.npy", "labels.npy")


def main() -> None:
    """Write what is missing; a file is there whole or not at all, so what is there is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, help="directory, or any fsspec URL such as s3://bucket/digits")
    target = parser.parse_args().to
    filesystem, root = fsspec.core.url_to_fs(target)
    missing = [name for name in FILES if not filesystem.exists(f"{root}/{name}")]
    if not missing:
        print(f"The digits are already in {target}.")
        return
    arrays = read_digits()
    for name in missing:
        write_whole(filesystem, f"{root}/{name}", arrays[name])
    print(f"Wrote {' and '.join(missing)} to {target}.")


def read_digits() -> dict[str, bytes]:
    """The two files' bytes; the same on every machine."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    return {
        "images.npy": npy_bytes(np.save, images),
        "labels.npy": npy_bytes(np.save, digits.target.astype(np.int64)),
    }


def npy_bytes(save: Callable[..., None], array: object) -> bytes:
    """An array in NumPy's file format."""
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


def write_whole(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write an object atomically: object stores do so by themselves, local files need a rename."""
    if "file" not in filesystem.protocol:
        filesystem.pipe_file(path, data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.write_bytes(data)
    os.replace(scratch, target)


if __name__ == "__main__":
    main()
