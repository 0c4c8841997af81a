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
        remedy: What to do; empty where there is nothing to do, or ``found`` says it.
        subject: What it is about, where several have the same name.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    subject: str = ""

    @property
    def title(self) -> str:
        """Its name, and what it is about."""
        return f"{self.name} {self.subject}".rstrip()
