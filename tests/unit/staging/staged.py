"""Looks at what was staged, and does it harm."""

from trainyard.tasks.artifacts.datasets import dataset_path


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def staged_path(context, product):
    [dataset] = product.datasets
    return dataset_path(context.home, dataset)


def damage_bytes(path):
    path.chmod(0o644)
    with path.open("r+") as stream:
        stream.write("X")
