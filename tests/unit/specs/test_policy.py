from trainyard.flows.pipeline_run import policies_in_force
from trainyard.tasks.specs.policy import DEFAULT_POLICIES, StagePolicy


def test_what_a_policy_does_not_set_is_the_stages_default():
    policy = policies_in_force({"export": StagePolicy(cache="refresh")})["export"]
    assert policy == DEFAULT_POLICIES["export"].model_copy(update={"cache": "refresh"})


def test_so_it_is_after_json():
    policy = StagePolicy.model_validate_json(StagePolicy(retries=2).model_dump_json())
    assert policy.model_fields_set == {"retries"}
    assert policies_in_force({"train": policy})["train"].retry_delay_s == DEFAULT_POLICIES["train"].retry_delay_s


def test_delays_grow_up_to_their_bound():
    policy = StagePolicy(retries=5, retry_delay_s=10, backoff=3, max_retry_delay_s=100)
    assert policy.retry_delays_s() == [10, 30, 90, 100, 100]
