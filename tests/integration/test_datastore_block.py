"""What a datastore's Prefect block says reaches the staging."""

import os

from tests.unit.staging.staged import staged_path
from trainyard.tasks.blocks import DatastoreBlock
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references


def test_a_block_says_how_local_files_are_staged(prefect_server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("alpha")
    for link_mode in ("reflink", "hardlink"):
        DatastoreBlock(url=str(tmp_path / "data"), link_mode=link_mode).save(f"local-{link_mode}", overwrite=True)
        context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path / link_mode)
        product = stage_references([Datastore.load(f"local-{link_mode}").as_mount()], context)
        one_file = os.path.samefile(staged_path(context, product) / "a.txt", tmp_path / "data" / "a.txt")
        assert not one_file if link_mode == "reflink" else one_file
