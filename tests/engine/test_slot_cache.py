"""The slots: never more than there are, never a pinned one taken, the least recently used first."""

from hypothesis import given
from hypothesis import strategies as st

from likeness.engine.slot_cache import SlotCache


def test_the_least_recently_used_leaves_first() -> None:
    cache = SlotCache(3)
    first = cache.acquire(["anna"])
    cache.release(cache.slot_of("anna"))
    cache.acquire(["bert"])
    cache.release(cache.slot_of("bert"))
    assert cache.acquire(["anna"]) == first
    cache.release(cache.slot_of("anna"))
    cache.acquire(["cleo"])
    assert cache.held == ("anna", "cleo")


def test_a_large_one_takes_its_own_slot_only() -> None:
    cache = SlotCache(2)
    assert cache.acquire(["large"], large=["large"]) == (2,)
    assert cache.acquire(["other"], large=["other"]) is None
    assert cache.acquire(["anna"]) == (1,) and cache.usable == 1
    assert cache.release(2) is False
    assert cache.acquire(["other"], large=["other"]) == (2,)
    assert cache.held == ("anna", "other")
    cache.forget("other")
    assert cache.release(2)
    assert cache.acquire(["large"], large=["large"]) == (2,)


def test_no_room_while_all_are_pinned() -> None:
    cache = SlotCache(2)
    assert cache.acquire(["anna"]) == (1,)
    assert cache.acquire(["bert"]) is None
    cache.release(cache.slot_of("anna"))
    assert cache.acquire(["bert"]) == (1,)


def test_the_adapters_of_a_request_get_slots_together_or_not_at_all() -> None:
    cache = SlotCache(3)
    cache.acquire(["anna"])
    assert cache.acquire(["bert", "cleo"]) is None
    assert list(cache.held) == ["anna"]
    assert cache.acquire(["bert", "anna"]) == (2, 1)
    cache.release(1)
    assert cache.acquire(["cleo"]) is None  # anna's first pin is left
    cache.release(1)
    cache.release(2)
    assert cache.acquire(["cleo", "anna"]) == (2, 1)  # the one that stays is not evicted for the other
    assert list(cache.held) == ["cleo", "anna"]


def test_large_ones_of_one_request_have_a_slot_each() -> None:
    cache = SlotCache(2)
    assert cache.acquire(["x", "anna"], large=["x"]) == (2, 1)
    assert cache.acquire(["y", "x"], large=["y"]) == (3, 2)
    assert cache.acquire(["z"], large=["z"]) is None
    cache.release(3)
    assert cache.acquire(["z"], large=["z"]) == (3,)


ASK = st.tuples(st.lists(st.sampled_from("abcdefgXYZ"), min_size=1, max_size=3, unique=True), st.booleans())


@given(slots=st.integers(2, 5), asks=st.lists(ASK, max_size=60))
def test_pinned_adapters_stay_and_slots_are_never_shared(slots: int, asks: list[tuple[list[str], bool]]) -> None:
    """Capitals are large."""
    cache = SlotCache(slots)
    pinned: dict[str, int] = {}
    large_slots = 1
    for keys, keep in asks:
        large_slots = max(large_slots, sum(key.isupper() for key in keys))
        before = cache.held
        got = cache.acquire(keys, large=[key for key in keys if key.isupper() and key not in before])
        wanted = {*pinned, *keys}
        if got is None:
            assert cache.held == before
            assert sum(not key.isupper() for key in wanted) > slots - 1 or sum(map(str.isupper, wanted)) > large_slots
            continue
        assert len(set(got)) == len(keys)
        for key, slot in zip(keys, got, strict=True):
            assert slots <= slot < slots + large_slots if key.isupper() else 1 <= slot < slots
            assert pinned.get(key, slot) == slot
            assert slot not in {other for name, other in pinned.items() if name != key}
        assert len(cache.held) <= slots - 1 + large_slots
        if keep:
            pinned |= dict(zip(keys, got, strict=True))
        else:
            for slot in got:
                cache.release(slot)
    assert set(pinned) <= set(cache.held)
