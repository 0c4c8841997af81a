"""What the commands share: how an error ends one, how something is shown, and where a store is."""

import errno
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from trainyard.tasks.errors import DiskFullError, InvalidInputError, PermanentError, PipelineError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainyard.tasks.artifacts.store import ArtifactStore

BAD_INPUT, FAILED = 2, 1
"""Exit statuses."""
_OF_THIS_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}
_OF_THIS_MACHINE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}

StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="URL of the artifact store; by default TRAINYARD_STORE, or this machine's own."),
]


def open_store(url: str | None) -> "ArtifactStore":
    """The store at a URL, or the one of the settings."""
    from trainyard.tasks.artifacts.store import ArtifactStore
    from trainyard.tasks.settings import Settings

    return ArtifactStore(url or Settings().store_url)


def existing_store(url: str | None) -> "ArtifactStore":
    """The store; one that is named must be there, or it is another one that is meant."""
    store = open_store(url)
    if url is not None and not store.root.exists():
        raise InvalidInputError(f"--store {store.url}: there is no such place.")
    return store


def show(shown: "RenderableType") -> None:
    """Print something, lines as long as they are."""
    Console().print(shown, soft_wrap=True)


class Commands(TyperGroup):
    """Commands that an error ends with a sentence and a status, not with a traceback."""

    def invoke(self, ctx: Any) -> Any:  # click's context, or that of typer's own copy of click
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            _end(error)
        except OSError as error:
            if error.errno not in _OF_THIS_MACHINE:
                raise
            _end(_explain(error))


def _end(error: PipelineError) -> NoReturn:
    Console(stderr=True).print(Text.assemble((f"{type(error).__name__}: ", "bold red"), str(error)), soft_wrap=True)
    sys.exit(BAD_INPUT if isinstance(error, InvalidInputError) else FAILED)


def _explain(error: OSError) -> PipelineError:
    """What is wrong with this machine's files, and what to do."""
    what = f"{error.filename or 'A file of this machine'}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{what} Make room there ('trainyard gc'), or set TRAINYARD_HOME to a folder with room.")
    return PermanentError(
        f"{what} Correct the path or its permissions; what Trainyard itself keeps on this machine is below "
        "TRAINYARD_HOME: set that to a folder that you may write."
    )
