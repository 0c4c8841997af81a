"""What can be known to be wrong with an export before anything is trained."""

from pathlib import Path

from trainyard.tasks.specs.export import OnnxExport


def export_problems(settings: OnnxExport, source_directory: str) -> list[str]:
    """Everything that would keep the export from loading the model, one sentence each."""
    source = Path(source_directory).expanduser()
    if settings.module is None or not source.is_dir():
        return []
    name = settings.module.partition(":")[0]
    folders = [source, *sorted({path.parent for path in source.rglob("*.py")})]
    parts = name.split(".")
    if any((f.joinpath(*parts).with_suffix(".py").is_file() or f.joinpath(*parts).is_dir()) for f in folders):
        return []
    return [
        f"OnnxExport.module {settings.module!r}: the source directory {source} has no module {name!r}; "
        "expected 'package.module:factory', for example 'model:build' for a function build in model.py"
    ]
