"""Work pools, their queues, and global concurrency limits."""

import asyncio
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from trainyard.deployments.deploy.resource import Facts, Resource


class Pool(Resource):
    """A work pool: ``type`` and ``description``."""

    kind = "work pool"

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``. A pool of another type stays what it is: workers of that type serve it."""
        try:
            pool = client.read_work_pool(self.name)
        except ObjectNotFound:
            return None
        self.wanted["type"] = pool.type
        return {"type": pool.type, "description": pool.description}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        try:
            client.read_work_pool(self.name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template() if self.wanted["type"] == "process" else {}
            client.create_work_pool(WorkPoolCreate(name=self.name, base_job_template=template, **self.wanted))
        else:
            client.update_work_pool(self.name, WorkPoolUpdate(description=self.wanted["description"]))


class Queue(Resource):
    """A queue of a work pool: ``priority`` (1 first) and ``description``; its name is ``<pool>/<queue>``."""

    kind = "work queue"

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``."""
        pool, queue = self.name.split("/")
        try:
            found = client.read_work_queue_by_name(queue, work_pool_name=pool)
        except ObjectNotFound:
            return None
        return {"priority": found.priority, "description": found.description}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        pool, queue = self.name.split("/")
        try:
            found = client.read_work_queue_by_name(queue, work_pool_name=pool)
        except ObjectNotFound:
            client.create_work_queue(queue, work_pool_name=pool, **self.wanted)
        else:
            asyncio.run(_update_queue(found.id, self.wanted))


class Limit(Resource):
    """A global concurrency limit: ``limit``, the slots; None leaves one that exists as it is.

    Args:
        name: Its name.
        limit: The slots, where somebody says so now.
        default: The slots of a limit that does not exist yet.
    """

    kind = "concurrency limit"

    def __init__(self, name: str, limit: int | None, default: int) -> None:
        super().__init__(name, {"limit": default if limit is None else limit})
        self._keep = limit is None

    def find(self, client: SyncPrefectClient) -> Facts | None:
        """See ``Resource``."""
        try:
            found = client.read_global_concurrency_limit_by_name(self.name)
        except ObjectNotFound:
            return None
        if self._keep:
            self.wanted["limit"] = found.limit
        return {"limit": found.limit}

    def put(self, client: SyncPrefectClient) -> None:
        """See ``Resource``."""
        try:
            client.read_global_concurrency_limit_by_name(self.name)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=self.name, **self.wanted))
        else:
            client.upsert_global_concurrency_limit_by_name(self.name, self.wanted["limit"])


async def _update_queue(queue_id: UUID, wanted: Facts) -> None:
    """Prefect's synchronous client cannot."""
    async with get_client() as client:
        await client.update_work_queue(queue_id, **wanted)
