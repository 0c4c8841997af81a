"""A person at the Prefect UI, in a real browser: fill in the form, watch the run, open what it shows."""

import os
import shutil
from pathlib import Path

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

from tests.e2e.yard import runs_below
from tests.processes import wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")

SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a directory: keep what the browser showed, for docs/images


@pytest.fixture
def page(yard):
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        page = browser.new_page(viewport={"width": 1280, "height": 1500}, base_url=yard.api_url.removesuffix("/api"))
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def field(page, label, last=False):
    """The box of a form's field, by its label."""
    boxes = page.locator(".p-label.schema-form-property").filter(
        has=page.locator(f":scope > .p-label__header .schema-form-property__label:text-matches('^{label}( |$)')")
    )
    return boxes.last if last else boxes.first


def fill(page, label, text, last=False):
    field(page, label, last).locator("textarea, input").first.fill(str(text))


def add_argument(page, name, value=None, data=None):
    field(page, "Script parameters").get_by_text("Add item").last.click()
    fill(page, "Name", name, last=True)
    if value is not None:
        fill(page, "Value", value, last=True)
    if data is not None:
        fill(page, "Data", data, last=True)


def choose(page, label, option):
    field(page, label).locator(".p-select-button__control").press("Space")
    page.locator(".p-select-option", has_text=option).first.click()


def shoot(page, name):
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def open_form(page, yard):
    with yard.client() as client:
        deployment = client.read_deployment_by_name("training-pipeline/training-pipeline")
    page.goto(f"/deployments/deployment/{deployment.id}/run")
    page.get_by_text("Source directory", exact=True).first.wait_for()


def runs(yard):
    with yard.client() as client:
        return {run.id for run in client.read_flow_runs() if run.parent_task_run_id is None}


def submit(page):
    page.get_by_role("button", name="Submit").click()


def submitted(page, appeared):
    """Submit until there is a run: the form passes over a click that comes while it still takes in the last entry."""
    for _ in range(4):
        submit(page)
        found = wait_for(appeared, 20)
        if found:
            return found
    return set()


def test_a_run_from_the_form_to_its_artifacts(yard, page, linear_project, points):
    open_form(page, yard)
    fill(page, "Source directory", linear_project)
    fill(page, "Entry script", "train.py")
    add_argument(page, "--data-dir", data=points)
    add_argument(page, "--epochs", value=6)
    add_argument(page, "--nap", value=1)
    fill(page, "Compute target", "gpu")
    fill(page, "Processes per node", 2)
    backend = field(page, "Distributed backend")
    backend.get_by_text("str", exact=True).click()
    choose(page, "Distributed backend", "mpi")
    field(page, "Least metrics").get_by_text("Add item").click()
    choose(page, "Metric", "accuracy")
    fill(page, "Minimum", 0.5)
    field(page, "policies").get_by_text("Form", exact=True).click()
    field(page, "policies").get_by_text("Add item").click()
    choose(page, "Stage", "train")
    fill(page, "Retries", 1)
    field(page, "Source directory").scroll_into_view_if_needed()
    shoot(page, "form")
    before = runs(yard)
    (run_id,) = submitted(page, lambda: runs(yard) - before)
    with yard.client() as client:
        parameters = client.read_flow_run(run_id).parameters
    assert parameters["policies"] == [{"name": "train", "retries": 1}], "and what is left empty is the stage's own"
    assert parameters["validation"]["min_metrics"] == [{"name": "accuracy", "minimum": 0.5}]

    def state(name="Completed"):
        with yard.client() as client:
            run = client.read_flow_run(run_id)
        assert run.state_name not in {"Failed", "Crashed"}, run.state.message
        return run.state_name == name

    def artifact(key):
        """The newest of the run, or of the training that it started; there must be one alone."""
        runs = [run_id, *(run.id for run in runs_below(yard, run_id))]
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=runs))
        with yard.client() as client:
            found = client.read_artifacts(artifact_filter=wanted)
        assert len(found) <= 1, "updated in place"
        return found[0] if found else None

    assert wait_for(lambda: artifact("training-curve"), 120), "while training runs"
    first = artifact("training-curve").data
    assert wait_for(state, 240)
    assert artifact("training-curve").data != first, "the same artifact, with more of the curve"
    page.goto(f"/artifacts/artifact/{artifact('training-curve').id}")
    page.locator("img[src^='data:image/svg+xml']").wait_for()
    shoot(page, "training-curve")

    page.goto(f"/runs/flow-run/{run_id}")
    page.get_by_text("Completed").first.wait_for()
    page.get_by_text("linear 1x2 mpi").first.wait_for()
    page.wait_for_timeout(2000)  # the graph of the run draws itself
    shoot(page, "run")
    page.goto(f"/artifacts/artifact/{artifact('training-summary').id}")
    page.get_by_text("validated and registered").first.wait_for()
    page.get_by_text("accuracy").first.wait_for()
    shoot(page, "summary")


def test_the_export_is_filled_in_without_json(yard, page, linear_project):
    open_form(page, yard)
    fill(page, "Source directory", linear_project)
    fill(page, "Entry script", "none.py")  # so that the run ends at once
    field(page, "Factory parameters").get_by_text("Add item").click()
    fill(page, "Name", "width", last=True)
    fill(page, "Value", "32", last=True)
    field(page, "Dynamic axes").get_by_text("Add item").click()
    fill(page, "Name", "tokens", last=True)
    field(page, "Axes of any size").get_by_text("Add item").click()
    fill(page, "Axis", 1, last=True)
    fill(page, "Name", "sequence", last=True)
    shoot(page, "form-export")
    before = runs(yard)
    (run_id,) = submitted(page, lambda: runs(yard) - before)
    with yard.client() as client:
        export = client.read_flow_run(run_id).parameters["export"]
    assert export["module_params"] == [{"name": "width", "value": "32"}]
    assert export["dynamic_axes"] == [{"name": "tokens", "axes": [{"axis": 1, "name": "sequence"}]}]


def test_wrong_values_are_refused_by_the_form(yard, page, linear_project):
    open_form(page, yard)
    fill(page, "Source directory", linear_project)
    fill(page, "Entry script", "train.py")
    fill(page, "Processes per node", 0)
    submit(page)
    page.get_by_text("0 is less than the minimum of 1").first.wait_for()
    assert page.url.endswith("/run")
    shoot(page, "refused")


def test_a_password_never_becomes_a_parameter(yard, page, linear_project):
    open_form(page, yard)
    fill(page, "Source directory", linear_project)
    fill(page, "Entry script", "train.py")
    add_argument(page, "--data-dir", data="s3://KEY:hush@bucket/data")
    before = runs(yard)
    submit(page)
    page.get_by_text("is not valid under any of the given schemas").first.wait_for()
    assert runs(yard) == before


def test_a_datastore_block_is_made_in_the_catalog(yard, page):
    page.goto("/blocks/catalog")
    page.get_by_text("Trainyard Hosts", exact=True).first.wait_for()
    page.get_by_text("Trainyard Datastore", exact=True).first.wait_for()
    page.goto("/blocks/catalog/trainyard-datastore/create")
    for label, value in (("Block Name", "from-the-ui"), ("URL", "s3://training-data/digits")):
        box = page.locator(f".p-label:has(> .p-label__header span:text-is('{label}'))")
        box.locator("textarea, input").first.fill(value)
    page.get_by_role("button", name="Create").click()
    page.get_by_text('Datastore.load("from-the-ui")').first.wait_for()
    shoot(page, "block")
    with yard.client() as client:
        found = client.read_block_document_by_name("from-the-ui", "trainyard-datastore")
    assert found.data["url"] == "s3://training-data/digits"
    assert found.data.get("endpoint_url") is None, "what is left empty is not set"
