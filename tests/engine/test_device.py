"""What does not fit is done in parts, and what fails is found and left out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.diffusion.base import BaseModel
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.samplers import Sampler
from likeness.diffusion.sampling import square_rows
from likeness.diffusion.schedule import DiffusionSchedule
from likeness.engine.batch_limits import measured_limits
from likeness.engine.batcher import RowLimit
from likeness.engine.device import Device, apart
from likeness.errors import DeviceFailed, UsageError
from likeness.types import ImageRequest


@pytest.fixture
def device(tiny_base: BaseModel) -> Iterator[Device]:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=2, rank=2)
    yield Device(tiny_base, bank, limits=measured_limits(tiny_base, bank, max_batch=2))
    bank.close()


ITEMS = st.lists(st.tuples(st.integers(1, 2), st.booleans(), st.sampled_from("xy")), max_size=12)


@given(ITEMS, st.integers(1, 12), st.integers(1, 12))
def test_every_item_gets_its_own_result_or_its_own_error(
    items: list[tuple[int, bool, str]], limit: int, memory_rows: int
) -> None:
    """`memory_rows` rows fit; items with True break whatever part they are in; x and y are never in one part."""
    numbered, kinds = list(enumerate(items)), list[set[str]]()

    def work(part: Sequence[tuple[int, tuple[int, bool, str]]]) -> list[int]:
        kinds.append({kind for _, (_, _, kind) in part})
        if sum(rows for _, (rows, _, _) in part) > memory_rows:
            raise torch.OutOfMemoryError("no room")
        if any(is_bad for _, (_, is_bad, _) in part):
            raise ValueError("bad")
        return [number for number, _ in part]

    out, after = apart(
        numbered, work, RowLimit(limit, limit), rows=lambda item: item[1][0], kind=lambda item: item[1][2]
    )
    assert all(len(some) == 1 for some in kinds)
    for got, (number, (rows, is_bad, _)) in zip(out, numbered, strict=True):
        if is_bad or rows > memory_rows:
            assert isinstance(got, DeviceFailed)
        else:
            assert got == number
    assert 1 <= after.now <= limit


def test_an_error_of_ours_is_handed_on_as_it_is(device: Device) -> None:
    """A request of more steps than the base's schedule has."""
    assert isinstance(device.base.schedule, DiffusionSchedule)
    short = replace(device.base.schedule, alpha_bar=device.base.schedule.alpha_bar[:50])
    device.base = replace(device.base, schedule=short)
    plain, bare = ImageRequest("x", steps=2, guidance_scale=1.0, sampler="ddim"), ()
    begun, refused = device.begin([(plain, bare), (replace(plain, steps=100), bare)])
    assert not isinstance(begun, Exception)
    assert isinstance(refused, UsageError)


def test_an_image_that_breaks_a_step_is_left_out_and_nothing_is_done_twice(device: Device) -> None:
    requests = ImageRequest("x", steps=3, guidance_scale=1.0, sampler="ddim").numbered(3)
    begun = device.begin([(request, ()) for request in requests])
    first, second, third = (image for image in begun if not isinstance(image, Exception))
    second.sampler = Sampler(())
    errors = device.advance([first, second, third])
    assert [type(error) for error in errors] == [type(None), DeviceFailed, type(None)]
    assert (first.step, second.step, third.step) == (1, 0, 1)


def test_a_larger_image_counts_as_the_squares_that_it_would_fill(tiny_base: BaseModel) -> None:
    square, half_more, half = (16, 16, 16), (16, 24, 16), (16, 16, 8)
    assert [square_rows(tiny_base, 2, shape) for shape in (square, half_more, half)] == [2, 3, 1]
    assert [square_rows(tiny_base, 1, shape) for shape in (square, half_more, half)] == [1, 2, 1]


def test_the_limit_is_as_set_where_memory_is_not_counted(device: Device) -> None:
    assert (device.rows, device.images) == (RowLimit(4, 4), RowLimit(2, 2))


@pytest.mark.gpu
def test_the_limit_is_measured_on_a_device_that_counts(tiny_base: BaseModel) -> None:
    from likeness.diffusion.base import load_base  # the built-in one, on the accelerator

    if not torch.accelerator.is_available():
        pytest.skip("no accelerator here")
    base = load_base()
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=2)
    limits = measured_limits(base, bank, max_batch=10**6)
    bank.close()
    assert 8 <= limits.rows.now < 2 * 10**6
    assert 8 <= limits.images.now < 10**6
