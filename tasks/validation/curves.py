"""The training run's own curves, for the report's page."""

import json
import math

from trainyard.tasks.artifacts.digests import digest_bytes
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore

Curves = dict[str, list[tuple[float, float]]]
"""Points (step, value) by metric."""

_FIRST_RANK = "rank-00000.jsonl"
_NOT_SHOWN = {"epoch", "progress", "samples_per_second"}


def read_curves(records: ArtifactRef | None, store: ArtifactStore) -> Curves:
    """Every metric that rank 0 logged at least twice; a line that cannot be read is left out."""
    if records is None:
        return {}
    try:
        lines = store.read_entry(records, _FIRST_RANK).splitlines()
    except KeyError:
        return {}
    curves: Curves = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # a killed rank leaves half a last line
            continue
        if record.get("kind") == "scalar" and record["name"] not in _NOT_SHOWN:
            points = curves.setdefault(record["name"], [])
            step = len(points) if record.get("step") is None else record["step"]
            value = float(record["value"])
            points.append((float(step), value if math.isfinite(value) else math.nan))
    return {name: points for name, points in curves.items() if len(points) > 1}


def digest_curves(curves: Curves) -> str:
    """Digest of the curves; not of canonical JSON, which has no NaN."""
    return digest_bytes(json.dumps(curves, sort_keys=True).encode())
