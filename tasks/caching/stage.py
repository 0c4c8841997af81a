"""Run one stage through its cache: look up, verify, else work and record."""

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal

from pydantic import BaseModel, model_validator

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.references import iter_references
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.caching.explain import ELSEWHERE, MISSING
from trainyard.tasks.caching.keys import StageKey, code_components, library_components
from trainyard.tasks.caching.known_stores import remember_store
from trainyard.tasks.caching.lease import held_lease
from trainyard.tasks.caching.records import Product, read_product, touch_record, write_record
from trainyard.tasks.caching.runs import StageNote, write_note
from trainyard.tasks.errors import (
    ArtifactDamagedError,
    ArtifactElsewhereError,
    InvalidInputError,
    PipelineError,
    StorageNotFoundError,
)
from trainyard.tasks.settings import Settings, store_problem
from trainyard.tasks.specs.policy import CacheMode, StageName
from trainyard.tasks.specs.spec import Spec

log = logging.getLogger(__name__)

_ANOTHER_RUN = "another run is making the same result"


Components = Mapping[str, str]
"""Configuration and inputs that decide a result, by name."""


class StageContext(Spec):
    """Where a stage keeps things, and how it uses its cache; never part of a key."""

    store_url: str
    """URL of the artifact store."""

    home: Path
    """Directory of this machine for runs, checkpoints and staged data."""

    cache: CacheMode = "on"
    """The stage's cache mode."""

    timeout_s: float | None = None
    """Seconds that one attempt may take."""

    model: str | None = None
    """Name of the model that the pipeline run makes, for its notes."""

    run_folder: str | None = None
    """Where the pipeline run notes how its stages went, below ``runs/``; without one, nothing is noted."""

    @classmethod
    def from_settings(cls, store_url: str | None = None, **changes: object) -> "StageContext":
        """The context of this machine's settings, for calling a stage without a pipeline."""
        settings = Settings()
        return cls.model_validate({"store_url": store_url or settings.store_url, "home": settings.home, **changes})

    @model_validator(mode="after")
    def _check_store(self) -> "StageContext":
        problem = store_problem(self.store_url, self.home)
        if problem:
            raise InvalidInputError(f"store {self.store_url}: {problem}")
        return self

    @property
    def store(self) -> ArtifactStore:
        """The artifact store."""
        return ArtifactStore(self.store_url)

    def note(
        self,
        stage: StageName,
        status: Literal["unfinished", "ran", "cached"],
        key: StageKey | None = None,
        missed: str | None = None,
    ) -> None:
        """Note how a stage of the pipeline run went, and under which key, for ``trainyard explain``."""
        components = dict(key.components) if key else {}
        self._write(StageNote(stage=stage, status=status, cache=self.cache, components=components, missed=missed), key)

    def note_inputs(self, stage: StageName, components: Components) -> None:
        """Note what a stage will read, where much comes before its key is known: 'trainyard gc' leaves that alone.

        Args:
            stage: The stage.
            components: Those of its key that are digests of what lies in the store.
        """
        self._write(StageNote(stage=stage, status="unfinished", cache=self.cache, components=dict(components)))

    def _write(self, note: StageNote, key: StageKey | None = None) -> None:
        if self.run_folder is not None:
            known = {"key": key.sha256 if key else None, "model": self.model}
            write_note(self.store, self.run_folder, note.model_copy(update=known))


def _nothing_more(product: BaseModel, context: StageContext) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[Product]):
    """What the cache must know of a stage.

    Args:
        name: The stage's name.
        product_type: The type of what it makes.
        packages: Packages below ``trainyard.tasks`` whose code decides the result.
        libraries: Distributions whose versions decide the result.
        verify: Proves what references cannot, such as staged files on local disk; raises
            ``ArtifactDamagedError``. References are always verified.
        size: Bytes of what it made, for people; by default those of its references.
    """

    name: StageName
    product_type: type[Product]
    packages: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    verify: Callable[[Product, StageContext], None] = field(default=_nothing_more)

    size: Callable[[Product], int] = field(default=lambda product: sum(r.num_bytes for r in iter_references(product)))

    def key(self, components: Components) -> StageKey:
        """The key for some configuration and inputs."""
        return StageKey(
            stage=self.name,
            components={**code_components(self.packages), **library_components(self.libraries), **components},
        )


class StageResult(BaseModel, Generic[Product]):
    """What a stage made, and whether it ran for it."""

    product: Product
    status: Literal["ran", "cached"]
    cache_key: str | None
    num_bytes: int
    attempts: int = 1


def run_stage(
    stage: Stage[Product],
    components: Components | Callable[[], Components],
    work: Callable[[StageKey], Product],
    context: StageContext,
    on_recorded: Callable[[StageKey], None] = lambda key: None,
) -> StageResult[Product]:
    """Give the verified result of before, or work and record the result.

    Of several runs that need the same key at once, one works; the others wait and reuse its result. The lock is
    the kernel's (``flock``), in this home and in a store on a disk, so a holder that dies frees it; for another store
    it is a lease in it, which expires when its holder dies.

    Args:
        stage: The stage.
        components: The configuration and inputs that decide the result, by name; or what computes them.
        work: Makes the product; gets the key (training keeps its checkpoints under it).
        context: Where things are, and how to use the cache.
        on_recorded: Called when a new product is safe (recorded, where the cache is in use), before anybody else
            may work at the key: the place to remove what only another attempt would need.

    Where the key cannot be computed, the stage runs, and nothing is recorded.

    Returns:
        The product, and whether it was cached.

    Raises:
        StageTimeoutError: Another run works at the key for longer than an attempt of this stage may take.
        PipelineError: What ``work`` raises, or computing the components.
    """
    remember_store(context.home, context.store.url)
    key = _computed_key(stage, components)
    if key is None:
        return _run_unkeyed(stage, work, context)
    context.note(stage.name, "unfinished", key)  # before it waits: then this is what it waits with
    lock = context.home / "locks" / f"{stage.name}-{key.sha256}.lock"
    with (
        exclusive(lock, _ANOTHER_RUN, context.timeout_s),
        held_lease(context.store, stage.name, key.sha256, context.timeout_s),
    ):
        found, missed = _verified_hit(stage, key, context) if context.cache == "on" else (None, None)
        if found is not None:
            context.note(stage.name, "cached", key)
            return _result(stage, found, "cached", key)
        context.note(stage.name, "unfinished", key, missed)
        product = work(key)
        if context.cache != "off":
            write_record(context.store, key, product)
        context.note(stage.name, "ran", key, missed)
        on_recorded(key)
        return _result(stage, product, "ran", key)


def look_up(
    stage: Stage[Product], components: Components | Callable[[], Components], context: StageContext
) -> StageResult[Product] | None:
    """Give the verified result of before, where the cache is on and there is one; never work.

    For who needs the product and not what ``Stage.verify`` proves of the machine that made it, such as staged files.
    """
    key = _computed_key(stage, components) if context.cache == "on" else None
    found = _verified_hit(replace(stage, verify=_nothing_more), key, context)[0] if key else None
    if key is None or found is None:
        return None
    context.note(stage.name, "cached", key)
    return _result(stage, found, "cached", key)


def _computed_key(stage: Stage[Product], components: Components | Callable[[], Components]) -> StageKey | None:
    """The key; None where it cannot be computed: then no result may be believed to be the same."""
    try:
        key = stage.key(components() if callable(components) else components)
        digest_value(dict(key.components))  # what cannot be digested is found here
    except PipelineError:  # says what is wrong with an input, which the work would meet, too
        raise
    except Exception as error:  # whatever the reason: a file that cannot be read or parsed, a broken installation, ...
        log.warning(
            "The key of the stage %s cannot be computed (%s: %s): it runs, and its result is not kept for later runs.",
            stage.name,
            type(error).__name__,
            error,
        )
        return None
    return key


def _run_unkeyed(
    stage: Stage[Product], work: Callable[[StageKey], Product], context: StageContext
) -> StageResult[Product]:
    """Work under a key that nobody else has, and record nothing."""
    context.note(stage.name, "unfinished")
    product = work(StageKey(stage.name, {"without a key": uuid.uuid4().hex}))
    context.note(stage.name, "ran")
    return StageResult(product=product, status="ran", cache_key=None, num_bytes=stage.size(product))


def _verified_hit(
    stage: Stage[Product], key: StageKey, context: StageContext
) -> tuple[Product, None] | tuple[None, str]:
    """What was made before, or why it is not used."""
    store = context.store
    product = read_product(store, key, stage.product_type)
    if product is None:
        return None, MISSING
    try:
        for reference in iter_references(product):
            store.verify(reference)
        stage.verify(product, context)
    except ArtifactElsewhereError as error:
        log.info("The result of %s is known, and is brought to this machine: %s", stage.name, error)
        return None, ELSEWHERE
    except (ArtifactDamagedError, StorageNotFoundError) as error:
        log.warning("The cached result of %s is not usable and is made again: %s", stage.name, error)
        return None, MISSING
    touch_record(store, key)
    return product, None


def _result(
    stage: Stage[Product], product: Product, status: Literal["ran", "cached"], key: StageKey
) -> StageResult[Product]:
    return StageResult(product=product, status=status, cache_key=key.sha256, num_bytes=stage.size(product))
