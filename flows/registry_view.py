"""What ``trainyard models`` shows."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainyard.flows.summary import format_bytes
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import ArtifactDamagedError, StorageNotFoundError
from trainyard.tasks.registry.aliases import Move, champion_of, list_moves, resolve
from trainyard.tasks.registry.compare import compare_versions
from trainyard.tasks.registry.damage import find_damage
from trainyard.tasks.registry.manifest import ModelManifest
from trainyard.tasks.registry.versions import list_models, list_versions, read_manifest, version_location


def render_models(store: ArtifactStore, name: str | None) -> RenderableType:
    """Every model with its aliases, or the versions of one."""
    return _models(store) if name is None else _versions(store, name)


def _models(store: ArtifactStore) -> RenderableType:
    names = list_models(store)
    if not names:
        return Text(f"No model is registered in {store.url}.")
    table = Table("model", "champion", "latest", "versions")
    for name in names:
        versions, champion = list_versions(store, name), champion_of(store, name)
        _add_row(table, name, _marked(store, name, champion), _marked(store, name, versions[-1]), str(len(versions)))
    return table


def _versions(store: ArtifactStore, name: str) -> RenderableType:
    resolve(store, name, "latest")  # says so where there is no such model
    champion, versions = champion_of(store, name), list_versions(store, name)
    damages = {version: find_damage(store, name, version) for version in versions}
    table = Table("version", "alias", "registered", "quality", "largest error", "size")
    if any(damages.values()):
        table.add_column("damage", style="red", overflow="fold")
    for version, damage in damages.items():
        aliases = [*(["champion"] if version == champion else []), *(["latest"] if version == versions[-1] else [])]
        _add_row(table, str(version), ", ".join(aliases), *_facts(store, name, version), *([damage] if damage else []))
    return table


def _facts(store: ArtifactStore, name: str, version: int) -> tuple[str, str, str, str]:
    """When it was registered, its quality, largest error and size; unknown where its manifest is damaged."""
    try:
        manifest = read_manifest(store, name, version)
    except ArtifactDamagedError:
        return "-", "-", "-", "-"
    return (
        f"{manifest.registered:%Y-%m-%d %H:%M}",
        _quality(manifest.validation.deciding_metrics),
        f"{manifest.validation.max_abs_error:.3g}",
        format_bytes(manifest.bundle.num_bytes),
    )


def _marked(store: ArtifactStore, name: str, version: int | None) -> str:
    if version is None:
        return "-"
    try:
        return f"{version} (damaged)" if find_damage(store, name, version) else str(version)
    except StorageNotFoundError:  # the champion's manifest is gone, and with it the version
        return f"{version} (missing)"


def render_version(store: ArtifactStore, name: str, wanted: str) -> RenderableType:
    """Lineage, proof and files of a version, and the champion's history."""
    version = resolve(store, name, wanted)
    manifest = read_manifest(store, name, version)
    lineage = manifest.lineage
    damage = find_damage(store, name, version)
    facts = {
        "model": f"{name} version {version}",
        **({"damage": f"{damage}: it cannot be loaded; register the model again"} if damage else {}),
        "at": version_location(store, name, version).url,
        "registered": f"{manifest.registered:%Y-%m-%d %H:%M:%S} UTC",
        "validation": _verdict(manifest),
        "source": lineage.source_sha256,
        **{f"data {n}": f"{uri} ({sha256[:12]})" for n, (uri, sha256) in enumerate(lineage.datasets.items())},
        "arguments": " ".join(lineage.arguments),
        "topology": lineage.topology,
        "libraries": ", ".join(f"{library} {number}" for library, number in lineage.environment.items()),
        "training": _quality(lineage.metrics),
        "Prefect run": lineage.pipeline_run,
    }
    table = Table.grid(padding=(0, 2))
    for label, value in facts.items():
        table.add_row(Text(label, style="dim"), Text(value))
    files = Table("file", "size", "sha256")
    for entry in manifest.files:
        _add_row(files, entry.path, format_bytes(entry.num_bytes), entry.sha256[:12])
    moves = [
        Text(f"{move.moved:%Y-%m-%d %H:%M} {move.kind} to version {move.version}: {move.reason}")
        for move in list_moves(store, name)
    ]
    return Group(table, files, Text("champion", style="dim"), *(moves or [Text("none yet")]))


def render_difference(store: ArtifactStore, name: str, first: str, second: str) -> RenderableType:
    """What differs between two versions."""
    before, after = (read_manifest(store, name, resolve(store, name, wanted)) for wanted in (first, second))
    differences = compare_versions(before, after)
    if not differences:
        return Text(f"Versions {before.version} and {after.version} of {name} differ in nothing but when and by whom.")
    table = Table("", f"version {before.version}", f"version {after.version}")
    for difference in differences:
        _add_row(table, difference.what, difference.before, difference.after)
    return table


def _add_row(table: Table, *cells: str) -> None:
    """Texts as they are: in a plain string, rich takes ``[cat]`` for markup."""
    table.add_row(*map(Text, cells))


def describe_move(name: str, move: Move) -> RenderableType:
    """One move of the champion."""
    return Text(f"The champion of {name} is version {move.version}: {move.reason}.")


def _verdict(manifest: ModelManifest) -> str:
    verdict = manifest.validation
    agreement = "" if verdict.agreement is None else f", label agreement {verdict.agreement:.2%}"
    quality = f", {_quality(verdict.metrics)}" if verdict.metrics else ""
    return (
        f"{'passed' if verdict.passed else 'failed'}, largest error {verdict.max_abs_error:.3g} over "
        f"{verdict.num_samples:,} samples{agreement}{quality}"
    )


def _quality(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items())) or "-"
