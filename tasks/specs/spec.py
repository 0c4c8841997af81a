"""The settings that every spec shares."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value; an unknown field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
