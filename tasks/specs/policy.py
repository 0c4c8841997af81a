"""How a stage is retried, bounded in time and cached."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from trainyard.tasks.specs.form import FormEntries, fields_of, what_was_set
from trainyard.tasks.specs.spec import Spec

StageName = Literal["stage", "train", "metrics", "export", "validate", "register"]
CacheMode = Literal["on", "off", "refresh"]

STAGE_NAMES: tuple[StageName, ...] = ("stage", "train", "metrics", "export", "validate", "register")


class StagePolicy(Spec):
    """Retries, deadline and cache of one stage. A policy is never part of a cache key."""

    retries: int = Field(default=0, ge=0, le=50, title="Retries")
    """Further attempts after a transient error (Prefect takes at most 50). Permanent errors are never retried."""

    retry_delay_s: float = Field(default=2.0, ge=0, le=3600, title="Retry delay (seconds)")
    """Seconds before the first further attempt."""

    backoff: float = Field(default=2.0, ge=1, le=10, title="Backoff factor")
    """Each further delay is the one before, times this factor."""

    max_retry_delay_s: float = Field(default=300.0, ge=0, le=86_400, title="Longest retry delay (seconds)")
    """No delay grows beyond this, jitter aside."""

    jitter: float = Field(default=0.2, ge=0, le=1, title="Jitter")
    """Delays are stretched at random by up to this fraction, so that many runs do not retry in step."""

    timeout_s: float | None = Field(default=None, gt=0, title="Timeout (seconds)")
    """Seconds one attempt may take; none by default."""

    cache: CacheMode = Field(default="on", title="Cache")
    """on: reuse a verified result; refresh: run and replace it; off: neither read nor write."""

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A policy that went through JSON still leaves what it does not set to the stage's default."""
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if name in self.model_fields_set}

    def retry_delays_s(self) -> list[float]:
        """Seconds to wait before each further attempt, before jitter."""
        return [min(self.retry_delay_s * self.backoff**n, self.max_retry_delay_s) for n in range(self.retries)]


STAGE = {"type": "string", "title": "Stage", "enum": list(STAGE_NAMES)}

Policies = Annotated[
    dict[StageName, StagePolicy] | None,
    FormEntries("Policy", {"name": STAGE, **fields_of(StagePolicy)}, what_was_set),
]
"""Stage to policy; in a form, entries of which each names its stage."""

DEFAULT_POLICIES: Mapping[StageName, StagePolicy] = {
    "stage": StagePolicy(retries=3, retry_delay_s=2),
    "train": StagePolicy(retry_delay_s=10),  # retries are left open: on a work pool, a lost worker is retried once
    "metrics": StagePolicy(retries=2, retry_delay_s=1),
    "export": StagePolicy(retries=1, retry_delay_s=1, timeout_s=3600),
    "validate": StagePolicy(retries=1, retry_delay_s=1, timeout_s=3600),
    "register": StagePolicy(retries=3, retry_delay_s=2, timeout_s=3600),
}
