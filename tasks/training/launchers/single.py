"""One process: ``python entry_script``."""

from trainyard.tasks.training.launchers.command import (
    LaunchCommand,
    LaunchSpec,
    device_environment,
    thread_environment,
)


def build(spec: LaunchSpec) -> LaunchCommand:
    """The command that runs the script in one process with all cores."""
    return LaunchCommand(
        argv=(spec.python, "-u", *spec.rank_command),
        env={**spec.environment, **thread_environment(spec), **device_environment(spec)},
        cwd=spec.working_directory,
        timeout_s=spec.timeout_s,
    )
