"""The settings that every spec shares."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value that survives JSON, NaN included; an unknown field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")
