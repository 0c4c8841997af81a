from trainyard.tasks.export.task import export_model
from trainyard.tasks.retries import with_policy
from trainyard.tasks.specs.policy import StagePolicy


def test_the_most_retries_a_policy_allows_are_allowed_by_prefect():
    most = next(limit.le for limit in StagePolicy.model_fields["retries"].metadata if hasattr(limit, "le"))
    assert with_policy(export_model, StagePolicy(retries=most)).retries == most
