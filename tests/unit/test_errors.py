import inspect
import pickle

import pytest

from trainyard.tasks import errors

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.PipelineError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_with_its_details(cls):
    error = cls("what happened", rank=3, report_uri="s3://x")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == "what happened"
    assert (again.rank, again.report_uri) == (3, "s3://x")


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_either_worth_a_retry_or_not(cls):
    kinds = [issubclass(cls, errors.TransientError), issubclass(cls, errors.PermanentError)]
    assert sum(kinds) == (0 if cls is errors.PipelineError else 1)


def test_the_drawing_of_the_tree_names_every_error():
    assert all(cls.__name__ in errors.__doc__ for cls in ALL)


def test_bad_input_names_every_problem():
    error = errors.InvalidInputError.from_problems("The pipeline", ["no source", "no data"])
    assert "2 problems; nothing was launched" in str(error)
    assert "  - no source\n  - no data" in str(error)
    assert error.problems == ("no source", "no data")
