"""The errors of setting up."""

from trainyard.tasks.errors import PermanentError


class SetupError(PermanentError):
    """The environment cannot be set up as things are; the message is for the person at the terminal."""


class InstallerKilledError(SetupError):
    """A signal ended the installer, so that a package may be half there."""
