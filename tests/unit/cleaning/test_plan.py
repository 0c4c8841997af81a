"""The promises of garbage collection, for any inventory."""

from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.cleaning.plan import UNREFERENCED_S, YOUNG_S, Blob, Inventory, Item, Limits, common, plan_removal

DAY = 24 * 3600.0
NOW = 1000 * DAY
BLOBS = [f"blob {n}" for n in range(8)]
TIMES = st.sampled_from([NOW, NOW - YOUNG_S / 2, NOW - 2 * YOUNG_S, NOW - 2 * DAY, NOW - 10 * DAY, NOW - 400 * DAY])


@st.composite
def inventories(draw):
    blobs = {name: Blob(name, draw(st.integers(0, 100)), draw(TIMES)) for name in draw(st.sets(st.sampled_from(BLOBS)))}
    items = [
        Item("thing", f"item {n}", draw(st.frozensets(st.sampled_from(BLOBS), max_size=4)), draw(TIMES), protected)
        for n, protected in enumerate(draw(st.lists(st.booleans(), max_size=6)))
    ]
    return Inventory(items, blobs)


LIMITS = st.builds(
    Limits, st.one_of(st.none(), st.integers(0, 400)), st.one_of(st.none(), st.sampled_from([0.0, DAY, 30 * DAY]))
)


@given(inventories(), LIMITS)
def test_what_is_protected_or_young_stays_with_all_that_it_needs(inventory, limits):
    plan = plan_removal(inventory, limits, NOW)
    staying = [item for item in inventory.items if item not in plan.items]
    for item in inventory.items:
        if item.protected or NOW - item.last_used_s < YOUNG_S:
            assert item in staying
    needed = {blob for item in staying for blob in item.blobs}
    assert not needed & {blob.id for blob in plan.blobs}


@given(inventories(), LIMITS)
def test_the_limits_are_kept_by_all_that_may_go(inventory, limits):
    plan = plan_removal(inventory, limits, NOW)
    free_to_go = [i for i in inventory.items if not i.protected and NOW - i.last_used_s >= YOUNG_S]
    staying = [item for item in free_to_go if item not in plan.items]
    if limits.keep_s is not None:
        assert all(NOW - item.last_used_s <= limits.keep_s for item in staying)
    if limits.max_bytes is not None and staying:
        assert plan.kept_bytes <= limits.max_bytes
    left = [blob for blob in inventory.blobs.values() if blob not in plan.blobs]
    assert plan.kept_bytes == sum(blob.num_bytes for blob in left)


@given(inventories(), st.integers(0, 400))
def test_where_the_limit_is_missed_all_that_stays_is_accounted_for(inventory, max_bytes):
    plan = plan_removal(inventory, Limits(max_bytes), NOW)
    if plan.kept_bytes > max_bytes:
        assert plan.young_bytes + plan.needed_bytes == plan.kept_bytes
    needed = {blob for item in inventory.items if item.protected for blob in item.blobs} & set(inventory.blobs)
    assert plan.needed_bytes == sum(inventory.blobs[blob].num_bytes for blob in needed)


@given(inventories(), st.integers(0, 400))
def test_the_least_recently_used_goes_first_and_no_more_than_must(inventory, max_bytes):
    plan = plan_removal(inventory, Limits(max_bytes), NOW)
    free_to_go = [i for i in inventory.items if not i.protected and NOW - i.last_used_s >= YOUNG_S]
    staying = [item.last_used_s for item in free_to_go if item not in plan.items]
    assert all(item.last_used_s <= min(staying, default=NOW) for item in plan.items)
    if plan.items:
        *others, last = plan.items
        before = {blob for item in inventory.items if item not in others for blob in item.blobs}
        referenced = {blob for item in inventory.items for blob in item.blobs}
        size = sum(
            blob.num_bytes
            for blob in inventory.blobs.values()
            if blob.id in before or NOW - blob.last_used_s < (YOUNG_S if blob.id in referenced else UNREFERENCED_S)
        )
        assert size > max_bytes, last


@given(inventories())
def test_without_limits_only_what_nothing_refers_to_goes(inventory):
    plan = plan_removal(inventory, Limits(), NOW)
    needed = {blob for item in inventory.items for blob in item.blobs}
    assert plan.items == ()
    assert {blob.id for blob in plan.blobs} == {
        blob.id for blob in inventory.blobs.values() if blob.id not in needed and NOW - blob.last_used_s >= DAY
    }


@given(inventories(), inventories(), LIMITS)
def test_what_one_of_two_plans_keeps_is_kept(first, second, limits):
    plans = plan_removal(first, limits, NOW), plan_removal(second, limits, NOW)
    both = common(*plans)
    assert {item.id for item in both.items} <= {i.id for i in plans[0].items} & {i.id for i in plans[1].items}
    assert {blob.id for blob in both.blobs} <= {b.id for b in plans[0].blobs} & {b.id for b in plans[1].blobs}
