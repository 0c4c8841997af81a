"""Put source, data, Trainyard's own code and checkpoints in their places on one node."""

import json
from pathlib import Path

from trainyard.tasks.training.hosts.connection import Connection
from trainyard.tasks.training.hosts.plan import HostsPlan
from trainyard.tasks.training.hosts.program import own_files
from trainyard.tasks.training.hosts.transfer import (
    LocalFile,
    Tree,
    build_tree,
    files_below,
    links_below,
    read_tree,
    send_directory,
    send_links,
    send_objects,
    tree_digest,
)
from trainyard.tasks.training.packages.layer import BASE


class Placement:
    """What every node is given; read and hashed here once.

    Args:
        plan: Where things are.
    """

    def __init__(self, plan: HostsPlan) -> None:
        self._plan = plan
        home = Path(plan.home)
        self._source = read_tree(files_below(home / plan.area))
        self._links = {name: plan.text_on_node(target) for name, target in links_below(home / plan.area).items()}
        self._code = read_tree(own_files())
        self._packages = read_tree(_lasting_files(Path(plan.packages))) if plan.packages else {}
        self._datasets = {sha256: _dataset(home, home / plan.run / "manifests", sha256) for sha256 in plan.datasets}

    @property
    def code_directory(self) -> str:
        """What ranks import Trainyard from."""
        return f"{self._plan.node_home}/code/{tree_digest(self._code)[:32]}"

    @property
    def packages_directory(self) -> str | None:
        """Where ranks find the packages that the job asked for."""
        return f"{self._plan.node_home}/packages/{tree_digest(self._packages)[:32]}" if self._packages else None

    def put(self, connection: Connection) -> int:
        """Put everything on one node.

        Returns:
            Bytes sent, without the checkpoints.

        Raises:
            HostProblem: It could not be done.
        """
        plan, root = self._plan, self._plan.node_home
        trees = [self._source, self._code, self._packages, *self._datasets.values()]
        sent = send_objects(connection, root, (file for tree in trees for file in tree.values()))
        build_tree(connection, f"{root}/{plan.area}", self._source, linked=False)
        send_links(connection, self._links, f"{root}/{plan.area}")
        build_tree(connection, self.code_directory, self._code, linked=True)
        if self.packages_directory:
            build_tree(connection, self.packages_directory, self._packages, linked=True)
        for sha256, dataset in self._datasets.items():
            build_tree(connection, f"{root}/datasets/{sha256}/data", dataset, linked=True)
        send_directory(connection, Path(plan.home) / plan.checkpoints, f"{root}/{plan.checkpoints}")
        return sent


def _lasting_files(site_packages: Path) -> dict[str, Path]:
    """What of a layer's packages is the same everywhere: not the bytecode, nor the folders here that it lies on."""
    files = files_below(site_packages)
    return {name: path for name, path in files.items() if name != BASE and "__pycache__" not in path.parts}


def _dataset(home: Path, manifests: Path, sha256: str) -> Tree:
    """The files of a staged dataset: their digests are those of the manifest, so nothing is hashed again."""
    data = home / "datasets" / sha256 / "data"
    manifest = json.loads((manifests / f"{sha256}.json").read_bytes())
    return {
        entry["key"]: LocalFile(data / entry["key"], entry["sha256"], entry["num_bytes"])
        for entry in manifest["objects"]
    }
