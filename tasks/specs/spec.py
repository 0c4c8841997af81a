"""The settings that every spec shares."""

import json

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value that survives JSON, NaN included; an unknown field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")

    def key_components(self) -> dict[str, str]:
        """Each field as a component of a stage's key: ``config:<name>`` to its JSON text."""
        fields = self.model_dump(mode="json").items()
        texts = {name: json.dumps(value, sort_keys=True, separators=(",", ":")) for name, value in fields}
        return {f"config:{name}": text for name, text in texts.items()}
