"""What differs between two registered versions."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard.tasks.registry.load import bundle_files
from trainyard.tasks.registry.manifest import ModelManifest


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that differs.

    Args:
        what: The fact.
        before: Its value in the first version.
        after: Its value in the second.
    """

    what: str
    before: str
    after: str


def compare_versions(first: ModelManifest, second: ModelManifest) -> list[Difference]:
    """Every fact of lineage, proof and files that differs, in that order."""
    before, after = _facts(first), _facts(second)
    names = dict.fromkeys([*before, *after])
    return [
        Difference(name, before.get(name, "none"), after.get(name, "none"))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _facts(manifest: ModelManifest) -> dict[str, str]:
    lineage, validation = manifest.lineage, manifest.validation
    return {
        "source": lineage.source_sha256[:12],
        **_prefixed("data", {uri: sha256[:12] for uri, sha256 in lineage.datasets.items()}),
        "arguments": " ".join(lineage.arguments),
        "topology": lineage.topology,
        **_prefixed("library", lineage.environment),
        **_prefixed("training", {name: f"{value:.6g}" for name, value in lineage.metrics.items()}),
        **_prefixed("validated", {name: f"{value:.6g}" for name, value in validation.metrics.items()}),
        "samples": (validation.samples_sha256 or "random")[:12],
        "largest error": f"{validation.max_abs_error:.3g}",
        "agreement": "none" if validation.agreement is None else f"{validation.agreement:.4%}",
        "pipeline run": lineage.pipeline_run,
        **_prefixed("file", {entry.path: entry.sha256[:12] for entry in bundle_files(manifest)}),
    }


def _prefixed(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix} {name}": value for name, value in values.items()}
