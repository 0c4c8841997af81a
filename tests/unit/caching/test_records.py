"""A record is believed only where it proves itself: its own bytes, and the key that it was written for."""

import json
import logging
import math
import shutil
import threading

import pytest

from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.records import read_product, record_path, write_record
from trainyard.tasks.caching.stage import Stage, StageContext, run_stage
from trainyard.tasks.specs.spec import Spec


class Finals(Spec):
    """A product whose values are in the record itself, with no artifact that could prove them."""

    accuracy: float
    loss: float = 0.5
    passed: bool = True


STAGE = Stage(name="metrics", product_type=Finals, packages=())
KEY = StageKey("metrics", {"config:x": "1"})
MADE = Finals(accuracy=0.975)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "store"))


def path_of(store, key):
    return store.root.local_path / record_path(key.stage, key.sha256)


def test_what_was_written_is_read(store):
    write_record(store, KEY, MADE)
    assert read_product(store, KEY, Finals) == MADE


def test_a_value_that_is_no_number_survives(store):
    write_record(store, KEY, Finals(accuracy=math.nan, loss=-math.inf))
    read = read_product(store, KEY, Finals)
    assert math.isnan(read.accuracy)
    assert read.loss == -math.inf


EDITS = {
    "a number": ("0.975", "0.125"),
    "the verdict": ('"passed": true', '"passed": false'),
    "the time": ('"created": "2', '"created": "1'),
    "a component": ('"config:x": "1"', '"config:x": "2"'),
    "the digest": ('"sha256": "', '"sha256": "0'),
    "another field": ('"stage"', '"more": 1, "stage"'),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_record_is_not_believed_and_is_named(store, caplog, edit):
    write_record(store, KEY, MADE)
    path = path_of(store, KEY)
    text = path.read_text()
    assert text.count(edit[0]) == 1
    path.write_text(text.replace(*edit))
    assert read_product(store, KEY, Finals) is None
    assert str(path) in caplog.text
    assert "damaged" in caplog.text


def test_no_flipped_digit_is_believed(store):
    write_record(store, KEY, MADE)
    path = path_of(store, KEY)
    text = path.read_text()
    for n, char in enumerate(text):
        if char.isdigit():
            path.write_text(f"{text[:n]}{(int(char) + 1) % 10}{text[n + 1 :]}")
            assert read_product(store, KEY, Finals) is None, f"position {n}: …{text[n - 20 : n + 1]}"


OTHER_KEYS = [StageKey("metrics", {"config:x": "2"}), StageKey("validate", {"config:x": "1"})]


@pytest.mark.parametrize("other", OTHER_KEYS, ids=["another key", "another stage"])
def test_a_record_in_the_place_of_another_is_not_believed(store, caplog, other):
    write_record(store, KEY, MADE)
    path_of(store, other).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path_of(store, KEY), path_of(store, other))
    assert read_product(store, other, Finals) is None
    assert str(path_of(store, other)) in caplog.text


def test_a_record_of_an_earlier_form_is_a_miss_without_alarm(store, caplog):
    old = {"stage": "metrics", "components": KEY.components, "product": {"accuracy": 0.975}, "created": "2026-01-01"}
    (store.root / record_path(KEY.stage, KEY.sha256)).write_bytes(json.dumps(old).encode())
    assert read_product(store, KEY, Finals) is None
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_stage_whose_record_was_edited_runs_again(store, tmp_path):
    context = StageContext(store_url=store.url, home=tmp_path / "home")

    def run():
        return run_stage(STAGE, {"config:x": "1"}, lambda key: MADE, context)

    key = run().cache_key
    path = store.root.local_path / record_path("metrics", key)
    path.write_text(path.read_text().replace("0.975", "0.125"))
    again = run()
    assert (again.status, again.product) == ("ran", MADE)
    assert run().status == "cached"


def test_who_reads_while_others_write_gets_one_of_the_records_whole(store, caplog):
    products = [Finals(accuracy=n, loss=n) for n in range(4)]
    write_record(store, KEY, products[0])
    ended = threading.Event()

    def write(product):
        while not ended.is_set():
            write_record(store, KEY, product)

    writers = [threading.Thread(target=write, args=(product,)) for product in products]
    for writer in writers:
        writer.start()
    try:
        assert all(read_product(store, KEY, Finals) in products for _ in range(300))
    finally:
        ended.set()
        for writer in writers:
            writer.join()
