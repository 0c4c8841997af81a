"""The answer to one question about a machine."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What it is.
        status: ``fail`` where training cannot work, ``warn`` where some of it cannot, ``skip`` where it was not
            looked at or does not apply.
        found: What was found.
        remedy: What to do; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
