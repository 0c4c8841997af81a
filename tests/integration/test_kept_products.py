"""What a pipeline keeps of its stages for whoever asks before it has ended."""

from prefect import flow, task

from trainyard import PyTorch
from trainyard.flows import pipeline_run
from trainyard.flows.handover import TrainedOnPool
from trainyard.flows.pipeline_run import PipelineRunner, policies_in_force
from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageResult
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.specs.results import StageOutcome


def test_of_a_training_on_a_pool_only_what_training_made_is_kept(prefect_server, home, linear_project, monkeypatch):
    kept = []
    tree = ArtifactStore(f"file://{home}/store").put_tree(linear_project)
    trained = TrainedRun(run_id="1", source=tree, outputs=tree, logs=tree, records=tree, world_size=1, resumed=False)
    outcome = StageOutcome(stage="stage", status="ran", attempts=1, seconds=0.0)
    on_pool = TrainedOnPool(staged=StagedData(), trained=trained, outcomes={"stage": outcome, "train": outcome})

    @task(name="train")
    def there(pool, estimator, policies, context):
        return as_state(StageResult(product=on_pool, status="ran", cache_key=None, num_bytes=0))

    @flow
    def pipeline():
        estimator = PyTorch(source_directory=str(linear_project), entry_script="train.py", compute_target="far")
        run = PipelineRunner(estimator, "linear", policies_in_force({}), f"file://{home}/store", home)
        assert run.training(there, there) == (on_pool.staged, trained)
        assert list(run.outcomes) == ["stage", "train"]

    monkeypatch.setattr(pipeline_run, "retried_when_lost", lambda policy: (there, policy))
    monkeypatch.setattr(pipeline_run, "keep_product", lambda store, name, product: kept.append((name, product)))
    pipeline()
    assert kept == [("train", trained)], "never what says how, under the same name"
