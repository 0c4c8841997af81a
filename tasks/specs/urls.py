"""URLs as fields: what everybody may see, so without credentials."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from trainyard.tasks.credentials import credentials_problem, endpoint_problem


def _without(problem_of: Callable[[str], str | None]) -> AfterValidator:
    def check(url: str) -> str:
        problem = problem_of(url)
        if problem:
            raise ValueError(problem)
        return url

    return AfterValidator(check)


OpenUrl = Annotated[str, _without(credentials_problem)]
"""Any fsspec URL, or a path, without credentials."""

OpenEndpoint = Annotated[str, _without(endpoint_problem)]
"""The address of a server, without credentials, query or fragment."""
