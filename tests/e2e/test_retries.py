"""Every stage's own task under a policy with retries: storage that fails is tried again, bad input is not."""

import pytest
from prefect import flow

from trainyard import Datastore, OnnxExport, OrtValidation, StagePolicy, errors
from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, StagedData, TrainedRun, ValidatedModel
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.export.task import export_model
from trainyard.tasks.metrics.task import collect
from trainyard.tasks.registry.task import register
from trainyard.tasks.retries import with_policy
from trainyard.tasks.specs.results import ValidationSummary
from trainyard.tasks.staging.task import stage
from trainyard.tasks.validation.task import validate

POLICY = StagePolicy(retries=2, retry_delay_s=0.01, jitter=0)
GONE = ArtifactRef(uri="gone", sha256="0" * 64, num_bytes=1, kind="tree")
BUNDLE = OnnxBundle(bundle=GONE, opset=20, model_file="model.pt2")
SUMMARY = ValidationSummary(
    passed=True, max_abs_error=0, max_rel_error=0, agreement=None, num_samples=1, latency_ms=None
)
LINEAGE = Lineage(
    source_sha256="a" * 64, datasets={}, arguments=(), topology="1x1", environment={}, metrics={}, pipeline_run="x"
)


def trained_on(tree):
    """A training all of whose artifacts are one tree."""
    return TrainedRun(run_id="x", source=tree, outputs=tree, logs=tree, records=tree, world_size=1, resumed=False)


def validated(report):
    return ValidatedModel(report=report, bundle_sha256=GONE.sha256, verdict_sha256="b" * 64, summary=SUMMARY)


def cases(other):
    """Task to inputs that fail for storage, and inputs that can never work; ``other`` is a tree of something else."""
    unreachable = Datastore(url="s3://bucket", endpoint_url="http://127.0.0.1:1", anonymous=True)
    no_gpu = OrtValidation(providers=("TensorrtExecutionProvider",))
    return {
        stage: (((unreachable.path("data/"),),), ((Datastore(url="/no/such/directory").as_mount(),),)),
        collect: ((trained_on(GONE),), (trained_on(other),)),
        export_model: ((OnnxExport(), trained_on(GONE), StagedData()), (OnnxExport(), trained_on(other), StagedData())),
        validate: (
            (OrtValidation(), BUNDLE, trained_on(other), None),
            (no_gpu, BUNDLE, trained_on(other), None),
        ),
        register: (
            ("digits", BUNDLE, validated(GONE), LINEAGE),
            ("No Name", BUNDLE, validated(GONE), LINEAGE),
        ),
    }


def test_each_stage_is_tried_again_where_that_can_help_and_only_there(prefect_server, context, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rank-00000.jsonl").write_text("neither a record\nnor a model\n")
    attempts = []

    @flow
    def attempt(task, *inputs):
        ruled = with_policy(task.with_options(on_running=[lambda *_: attempts.append(task.name)]), POLICY)
        return ruled(*inputs, context)

    for task, (fails, is_wrong) in cases(context.store.put_tree(tmp_path / "other")).items():
        for inputs, error, expected in ((fails, errors.TransientError, 3), (is_wrong, errors.PermanentError, 1)):
            attempts.clear()
            with pytest.raises(error):
                attempt(task, *inputs)
            assert attempts == [task.name] * expected, error.__name__
