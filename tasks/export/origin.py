"""What an exported model's metadata says of where it comes from."""

from trainyard.tasks.artifacts.products import StagedData, TrainedRun


def origin_of(trained: TrainedRun, data: StagedData) -> dict[str, str]:
    """What the model's metadata says of its origin, beside the digest of the run's outputs.

    No part of the key: equal outputs are the same model, which then names the source that first made it. A registered
    version's lineage names its own. No run id: the same training run again would be another model.
    """
    datasets = {f"trainyard.dataset.{n}": dataset.sha256 for n, dataset in enumerate(data.datasets)}
    return {"trainyard.source_sha256": trained.source.sha256, **datasets}
