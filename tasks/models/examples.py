"""An example batch for a model that was saved without one: from the run's outputs, or as described."""

import io
import zipfile
from typing import TYPE_CHECKING, Any

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.layout import EXAMPLE_FILE, LABELS_ARRAY, SAMPLES_FILE
from trainyard.tasks.specs.export import InputDescription, OnnxExport

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

BATCH_SIZE = 4
"""Samples of an example batch; at least two, for torch takes a size of one for fixed."""

ANY_SIZE = 8
"""Size of the other axes that a description leaves open."""

_SEED = 0


def example_inputs(settings: OnnxExport, outputs: ArtifactRef, store: ArtifactStore) -> "dict[str, Array]":
    """One array an input, by name.

    In this order: as ``OnnxExport.inputs`` describes them; ``example_inputs.npz``; the first samples of
    ``validation_samples.npz``.

    Raises:
        ExportError: There is none of these, or the file is not one of plain arrays.
    """
    import numpy as np

    if settings.inputs is not None:
        rng = np.random.default_rng(_SEED)
        return {described.name: _random(described, rng) for described in settings.inputs}
    for name, most in ((EXAMPLE_FILE, None), (SAMPLES_FILE, BATCH_SIZE)):
        try:
            data = store.read_entry(outputs, name)
        except KeyError:
            continue
        arrays = read_arrays(data, name)
        arrays.pop(LABELS_ARRAY, None)
        if arrays and all(array.ndim and len(array) for array in arrays.values()):
            return {key: _at_least_two(array[:most]) for key, array in arrays.items()}
        raise ExportError(f"{name} in the run's outputs holds no inputs; expected one array [batch, …] an input.")
    raise ExportError(
        "The exporter needs an example of the model's inputs, and there is none. Leave one in the run's outputs, "
        f"numpy.savez('outputs/{SAMPLES_FILE}', NAME=array, …) with held-out samples or 'outputs/{EXAMPLE_FILE}' with "
        "one batch, named like the parameters of forward; or describe them, OnnxExport(inputs=[{'name': 'image', "
        "'shape': ['batch', 1, 28, 28]}])."
    )


def read_arrays(data: bytes, shown_as: str) -> "dict[str, Array]":
    """The arrays of an ``.npz`` file; objects are refused, for they are pickles.

    Raises:
        ExportError: It is none.
    """
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ExportError(
            f"{shown_as} in the run's outputs is not an .npz file of plain arrays ({error}); "
            f"write it with numpy.savez('outputs/{shown_as}', …)."
        ) from error


def _random(described: InputDescription, rng: "np.random.Generator") -> "Array":
    import numpy as np

    sizes = [size if isinstance(size, int) else ANY_SIZE for size in described.shape]
    if isinstance(described.shape[0], str):
        sizes[0] = BATCH_SIZE
    if described.dtype == "bool":
        return rng.integers(0, 2, sizes).astype(bool)
    if described.dtype.startswith(("int", "uint")):
        low, high = int(np.ceil(described.minimum)), int(described.maximum)
        return rng.integers(low, high, sizes, endpoint=True).astype(described.dtype)
    return rng.uniform(described.minimum, described.maximum, sizes).astype(described.dtype)


def _at_least_two(array: "Array") -> "Array":
    import numpy as np

    return np.concatenate([array, array]) if len(array) == 1 else array
