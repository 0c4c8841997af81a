import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.errors import InvalidInputError, StorageNotFoundError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.listing import list_reference
from trainyard.tasks.staging.patterns import is_pattern, split_pattern
from trainyard.tasks.staging.probe import probe_reference

KEYS = ["a.png", "b.txt", "sub/a.png", "sub/deep/b.png", "sub/deep/[x].png", "A.png", "a^.png", "line\nbreak.png"]


@pytest.mark.parametrize(
    ("pattern", "folder", "expected"),
    [
        ("*.png", "", {"a.png", "A.png", "a^.png", "line\nbreak.png"}),
        ("**/*.png", "", {key for key in KEYS if key.endswith("png")}),
        ("**", "", set(KEYS)),
        ("sub/*.png", "sub", {"a.png"}),
        ("sub/**", "sub", {"a.png", "deep/b.png", "deep/[x].png"}),
        ("sub/*/b.png", "sub", {"deep/b.png"}),
        ("[aA].png", "", {"a.png", "A.png"}),
        ("[!a].png", "", {"A.png"}),
        ("a[^^].png", "", {"a^.png"}),
        ("?.txt", "", {"b.txt"}),
        ("sub/deep/[[]x].png", "sub/deep", {"[x].png"}),
        ("sub?a.png", "", set()),
        ("sub[/]a.png", "", set()),
    ],
)
def test_a_pattern_stands_for_these_keys(pattern, folder, expected):
    base, matches = split_pattern(pattern)
    assert base == folder
    below = {key.removeprefix(f"{base}/") for key in KEYS if not base or key.startswith(f"{base}/")}
    assert {key for key in below if matches(key)} == expected


@given(st.text(alphabet="ab[]!*?^-\\./", max_size=12), st.text(alphabet="ab[]!^-\\./", max_size=8))
def test_no_pattern_is_an_error_and_a_plain_key_matches_itself_alone(pattern, key):
    _, matches = split_pattern(pattern)
    matches(key)
    if not is_pattern(pattern) and pattern.strip("/"):
        assert split_pattern(pattern)[0] == pattern.strip("/")


NAMES = st.text(alphabet="ab.[", min_size=1, max_size=3)


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(st.sampled_from(["*", "**", "a*", "?", "b"]), max_size=4))
def test_patterns_mean_what_their_expression_means(names, middle):
    pattern = ["*", *middle]
    words = {"**": "(?:[^/]+/)*", "*": "[^/]*/", "a*": "a[^/]*/", "?": "[^/]/", "b": "b/"}
    expected = re.fullmatch("".join(words[part] for part in pattern), "/".join(names) + "/") is not None
    assert split_pattern("/".join(pattern))[1]("/".join(names)) == expected


@pytest.fixture
def source(tmp_path):
    for name in ("train/a.png", "train/deep/b.png", "train/notes.txt", "odd/[1].png"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return Datastore(url=str(tmp_path / "source"))


def staged_keys(reference):
    return [info.key for info in list_reference(reference).objects]


def test_a_reference_may_be_a_pattern(source, context):
    assert staged_keys(source.path("train/**/*.png")) == ["a.png", "deep/b.png"]
    assert staged_keys(source.path("**/b.*")) == ["train/deep/b.png"]
    probe_reference(source.path("train/*.png"))
    [dataset] = stage_references([source.path("train/*.png")], context).datasets
    assert (dataset.num_objects, dataset.single_object) == (1, False)


def test_a_file_of_that_very_name_goes_before_the_pattern(source):
    listing = list_reference(source.path("odd/[1].png"))
    assert (listing.single_object, [info.key for info in listing.objects]) == (True, ["[1].png"])


@pytest.mark.parametrize("look", [list_reference, probe_reference])
def test_no_match_and_no_folder_are_different_errors(source, look):
    with pytest.raises(InvalidInputError, match=r"No object matches .*\*\.jpg: there are 3 objects below .*train"):
        look(source.path("train/*.jpg"))
    with pytest.raises(StorageNotFoundError, match="nowhere"):
        look(source.path("nowhere/*.jpg"))
