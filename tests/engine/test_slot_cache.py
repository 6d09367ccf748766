"""The slots: never more than there are, never a pinned one taken, the least recently used first."""

from hypothesis import given
from hypothesis import strategies as st

from likeness.engine.slot_cache import SlotCache


def test_the_least_recently_used_leaves_first() -> None:
    cache = SlotCache(3)
    first = cache.acquire("anna")
    cache.release(cache.slot_of("anna"))
    cache.acquire("bert")
    cache.release(cache.slot_of("bert"))
    assert cache.acquire("anna") == first
    cache.release(cache.slot_of("anna"))
    cache.acquire("cleo")
    assert cache.held == ("anna", "cleo")


def test_a_large_one_takes_its_own_slot_only() -> None:
    cache = SlotCache(2)
    assert cache.acquire("large", is_large=True) == 2
    assert cache.acquire("other", is_large=True) is None
    assert cache.acquire("anna") == cache.usable == 1
    assert cache.release(2) is False
    assert cache.acquire("other", is_large=True) == 2
    assert cache.held == ("anna", "other")
    cache.forget("other")
    assert cache.release(2)
    assert cache.acquire("large", is_large=True) == 2


def test_no_room_while_all_are_pinned() -> None:
    cache = SlotCache(2)
    assert cache.acquire("anna") == 1
    assert cache.acquire("bert") is None
    cache.release(cache.slot_of("anna"))
    assert cache.acquire("bert") == 1


@given(slots=st.integers(2, 5), asks=st.lists(st.tuples(st.sampled_from("abcdefgXYZ"), st.booleans()), max_size=60))
def test_pinned_adapters_stay_and_slots_are_never_shared(slots: int, asks: list[tuple[str, bool]]) -> None:
    """Capitals are large."""
    cache = SlotCache(slots)
    pinned: dict[str, int] = {}
    for key, keep in asks:
        slot = cache.acquire(key, is_large=key.isupper())
        if slot is None:
            assert len([one for one in pinned if one.isupper() == key.isupper()]) == (1 if key.isupper() else slots - 1)
            assert key not in pinned
            continue
        assert slot == slots if key.isupper() else 1 <= slot < slots
        assert pinned.get(key, slot) == slot
        assert slot not in {other for name, other in pinned.items() if name != key}
        assert len(cache.held) <= slots
        if keep:
            pinned[key] = slot
        else:
            cache.release(slot)
    assert set(pinned) <= set(cache.held)
