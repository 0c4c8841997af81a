"""Block types: without them, nobody can make a block of ours in the UI."""

from html import unescape
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from trainyard.deployments.deploy.resource import Facts, Resource
from trainyard.tasks.blocks import DatastoreBlock, HostsBlock

_SYNC: dict[str, Any] = {"_sync": True}


class BlockType(Resource):
    """A type of blocks, with the schema that its form is made from.

    Schemas of other versions stay: blocks that were saved with them need them. So it is asked for ours alone.

    Args:
        block: The class whose values the blocks are.
    """

    kind = "block type"

    def __init__(self, block: type[Block]) -> None:
        shown = {"description": block.get_description(), "code_example": block.get_code_example()}
        super().__init__(block.get_block_type_name(), {**shown, "schema": block._calculate_schema_checksum()})
        self._block = block

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``."""
        try:
            found = client.read_block_type_by_slug(self._block.get_block_type_slug())
        except ObjectNotFound:
            return None
        shown = {"description": unescape(found.description or ""), "code_example": unescape(found.code_example or "")}
        return {**shown, "schema": self.wanted["schema"] if self._has_schema(client) else None}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        self._block.register_type_and_schema(**_SYNC)

    def _has_schema(self, client: SyncPrefectClient) -> bool:
        try:
            client.read_block_schema_by_checksum(self.wanted["schema"], self._block.get_block_schema_version())
        except ObjectNotFound:
            return False
        return True


def block_types() -> list[Resource]:
    """Those of this version."""
    return [BlockType(DatastoreBlock), BlockType(HostsBlock)]
