"""How a change is shown to people."""

import pytest

from trainyard.deployments.deploy.plan import Change
from trainyard.deployments.deploy.pools import Pool

STEP = "prefect.deployments.steps.set_working_directory"
CLONE = {"prefect.deployments.steps.git_clone": {"access_token": "hush", "repository": "https://me:hush@host/x"}}


def shown(wanted, found):
    return Change(Pool("gpu", wanted), found).render().plain.splitlines()[1:]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"env": {"BEAT": "hush"}}, "job_variables.env.BEAT: changed"),
        ({"env": {}}, "job_variables.env.BEAT: set"),
        ({"env": {"BEAT": "30", "KEY": "hush"}}, "job_variables.env.KEY: removed"),
        ({"env": "hush"}, "job_variables.env: changed"),
        ({}, "job_variables.env: set"),
    ],
)
def test_what_is_in_the_environment_of_runs_is_not_shown(found, line):
    assert shown({"job_variables": {"env": {"BEAT": "30"}}}, {"job_variables": found}) == [f"    {line}"]


def test_steps_that_go_are_named_and_their_values_are_not_shown():
    lines = shown({"pull_steps": [{STEP: {"directory": "/new"}}]}, {"pull_steps": [CLONE, {STEP: {"directory": "/x"}}]})
    assert [line for line in lines if "git_clone" in line] == [
        "    pull_steps.0.prefect.deployments.steps.git_clone: removed"
    ]
    assert "    pull_steps.1: removed" in lines
    assert "hush" not in "".join(lines)
    changed = shown({"pull_steps": [{STEP: {"directory": "/new"}}]}, {"pull_steps": [{STEP: {"directory": "/old"}}]})
    assert changed == [f"    pull_steps.0.{STEP}.directory: '/old' → '/new'"]


def test_credentials_in_urls_are_hidden_and_other_values_shown():
    (line,) = shown({"parameters": {"store": "s3://a/b"}}, {"parameters": {"store": "https://me:hush@host/b"}})
    assert line == "    parameters.store: 'https://****@host/b' → 's3://a/b'"
