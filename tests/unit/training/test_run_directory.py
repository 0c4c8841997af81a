"""What attempts at the same training find of each other."""

from prefect import flow, task

from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.runs import RunName
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.training.run_directory import RunDirectory, begin_afresh, discard_checkpoints
from trainyard.tasks.training.task import _pipeline_run

KEY = StageKey("train", {})


def test_only_attempts_of_the_same_pipeline_run_go_on_from_each_other(tmp_path):
    def train_afresh(pipeline_run):
        begin_afresh(tmp_path, KEY, pipeline_run)
        return RunDirectory.create(tmp_path, KEY).checkpoints / "last.pt"

    train_afresh("first").touch()
    assert train_afresh("first").exists()
    assert not train_afresh("second").exists()
    train_afresh("second").touch()
    assert not train_afresh("first").exists()


def test_nothing_is_left_of_a_training_that_ended_well(tmp_path):
    begin_afresh(tmp_path, KEY, "run")
    discard_checkpoints(tmp_path, KEY)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_pipeline_run_is_the_same_in_another_attempt_and_on_another_machine(prefect_server, tmp_path):
    context = StageContext(store_url=str(tmp_path / "store"), home=tmp_path)

    @task
    def train(context):
        return _pipeline_run(context)

    @flow
    def on_a_pool():
        folders = [RunName.now("the-pipeline").folder for _ in range(2)]
        return [train(context.model_copy(update={"run_folder": folder})) for folder in folders], train(context)

    (attempts, alone), (_, again) = on_a_pool(), on_a_pool()
    assert attempts == ["the-pipeline", "the-pipeline"]
    assert alone and alone != again
