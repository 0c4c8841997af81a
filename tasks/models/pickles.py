"""Unpickle a whole module: only in a ``ModelProcess``, for a pickle runs whatever code it holds."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.models.definitions import find_in_main


def load_pickle(path: Path, source: Path) -> Any:
    """Load what ``torch.save`` or ``pickle.dump`` wrote; classes of ``__main__`` come from the script that had them.

    Raises:
        ExportError: A class it needs is not there, or the file is damaged.
    """
    import torch

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return find_in_main(source, name) if module == "__main__" else super().find_class(module, name)

    def load(stream: Any, **options: Any) -> Any:
        return Unpickler(stream, **options).load()

    machinery = SimpleNamespace(**{**vars(pickle), "Unpickler": Unpickler, "load": load})
    try:
        return torch.load(path, map_location="cpu", pickle_module=machinery, weights_only=False)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if "magic number" not in str(error):
            raise _cannot_load(error) from error
    except (ImportError, AttributeError) as error:
        raise _cannot_load(error) from error
    with path.open("rb") as stream:  # of plain pickle.dump
        return load(stream)


def _cannot_load(error: Exception) -> ExportError:
    return ExportError(
        f"The pickled module cannot be loaded ({type(error).__name__}: {error}): its classes must be in the source "
        "directory, where they were when it was saved, or in an installed package. A state dict with a factory, or a "
        "torch.export program, does not depend on that."
    )
