"""What of a key decides which model export and validation load, and what it computes."""

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import PACKAGE_ROOT
from trainyard.tasks.imported.libraries import import_components
from trainyard.tasks.imported.scripts import scripts_of
from trainyard.tasks.specs.export import OnnxExport

LIBRARIES = ("torch", "safetensors")
"""Distributions that load a model of any kind."""

_STAND_IN = "runtime/azureml_compat.py"


def model_components(
    settings: OnnxExport, outputs: ArtifactRef, source: ArtifactRef | None, store: ArtifactStore
) -> dict[str, str]:
    """Components of a key that decide which model is loaded.

    The source counts only where its classes are needed, and then also the libraries and the code outside it that they
    are made of, and what stands in for ``azureml.core`` while they are imported (``serving`` imports it by its name).

    Args:
        settings: How the model is loaded.
        outputs: What training left.
        source: The training project.
        store: The store that holds it.

    Raises:
        ArtifactDamagedError: The source is needed, and is not whole.
    """
    inputs = {"input:outputs": outputs.sha256}
    if source is None or not settings.needs_source:
        return inputs
    stand_in = {f"code:{_STAND_IN}": digest_file(PACKAGE_ROOT / _STAND_IN)[0]}
    return {**inputs, **import_components(scripts_of(store, source)), **stand_in, "input:source": source.sha256}
