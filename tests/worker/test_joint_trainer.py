"""The joint loop as jobs see it: which join when, which train alone, and what a full device or a full disk does."""

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.installation import SMALL, picture
from fixtures.people import person
from fixtures.tiny import random_person, relative
from likeness.artifacts import bundle
from likeness.diffusion.base import BaseModel, load_base
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.sampling import AdapterSlot, denoise_all
from likeness.engine.engine import Engine
from likeness.errors import CorruptAdapter, InputRefused
from likeness.jobs import object_keys
from likeness.jobs.job import JobOrder
from likeness.photos import check, prepare_usable
from likeness.storage.device_turns import EngineTurns, TrainingTurns
from likeness.storage.objects import FileObjects
from likeness.storage.prepared_photos import pack_prepared
from likeness.training.data import TrainingSet
from likeness.training.loop import TrainingLoop
from likeness.training.pipeline import training_set
from likeness.training.recipe import FineTuneOrder, recipe_named
from likeness.types import Adapter, ImageRequest, Photo, Subject, WeightedAdapter
from likeness.worker.child_process import Document
from likeness.worker.joint_trainer import JointTrainer, preview_requests

pytestmark = pytest.mark.usefixtures("few_steps")


class Talk:
    """Line and inbox of a worker in the same process."""

    def __init__(self) -> None:
        self.heard: list[Document] = []
        self.waiting: queue.SimpleQueue[Document] = queue.SimpleQueue()
        self.comes: list[Document] = []

    def send(self, **said: Any) -> bool:
        self.heard.append(said)
        return True

    def take(self, timeout_s: float | None = 0.0) -> list[Document]:
        taken = []
        while not self.waiting.empty():
            taken.append(self.waiting.get())
        return taken

    def peek(self, wanted: Any) -> bool:
        """Looked at as often as a real one; what `comes` says arrives during that look."""
        if self.comes:
            self.waiting.put(self.comes.pop(0))
        taken = self.take()
        for said in taken:
            self.waiting.put(said)
        return any(wanted(said) for said in taken)

    def of(self, job: str, event: str) -> list[Document]:
        return [said for said in self.heard if said["event"] == event and said.get("job") == job]

    def events(self, *kinds: str) -> list[tuple[str, str]]:
        return [(said["job"], said["event"]) for said in self.heard if said["event"] in kinds]


@pytest.fixture(scope="module")
def prepared() -> bytes:
    found = check([Photo("1.jpg", picture(1)), Photo("2.jpg", picture(2))], "thing")
    return pack_prepared(prepare_usable(found))


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def objects(tmp_path: Path) -> FileObjects:
    return FileObjects(tmp_path / "objects")


@pytest.fixture
def trainer(tiny_base: BaseModel, objects: FileObjects, talk: Talk, tmp_path: Path) -> Iterator[JointTrainer]:
    made = JointTrainer(tiny_base, objects, talk, talk, capacity=2, previews=1)  # type: ignore[arg-type]
    yield made
    made.close()


class Sender:
    """Puts jobs in."""

    def __init__(self, talk: Talk, objects: FileObjects, prepared: bytes) -> None:
        self.talk, self.objects, self.prepared = talk, objects, prepared

    def __call__(self, job: str, *, steps: int = 4, attempt: int = 1, alone: bool = False, **changes: object) -> None:
        order = JobOrder("anna", job, "x", "dog", "fast", {**SMALL, "steps": steps, "checkpoint_every": 2, **changes})
        self.objects.put(object_keys.prepared_key("anna", job), self.prepared)
        self.talk.waiting.put({"do": "work", "job": job, "order": order.document(), "attempt": attempt, "alone": alone})

    def leave(self, job: str) -> None:
        self.talk.waiting.put({"do": "leave", "job": job})


@pytest.fixture
def send(talk: Talk, objects: FileObjects, prepared: bytes) -> Sender:
    return Sender(talk, objects, prepared)


def serve(trainer: JointTrainer, most: int = 60) -> None:
    """Until no job is left."""
    for _ in range(most):
        if trainer.serve_once() and trainer.is_idle:
            return
    raise AssertionError(f"a job was still there after {most} turns")


def test_jobs_join_a_running_loop_and_leave_it_with_an_adapter(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects
) -> None:
    send("a", steps=6)
    trainer.serve_once()
    trainer.serve_once()
    send("b", steps=8)
    send("c", steps=2)
    serve(trainer)
    assert [talk.of(job, "joined")[0]["together"] for job in "abc"] == [1, 2, 2]
    assert [job for job, _ in talk.events("trained")] == ["a", "c", "b"]
    for job in "abc":
        said = talk.of(job, "trained")[0]
        adapter = bundle.reopen(objects.get(object_keys.trained_key("anna", job)), said["adapter_sha256"])
        assert (adapter.card.name, adapter.card.steps) == (job, said["steps"])
    preview = talk.of("b", "preview")[0]
    assert objects.get(preview["key"]).startswith(b"\x89PNG")


def test_what_cannot_be_kept_ends_its_own_job_only(
    trainer: JointTrainer, talk: Talk, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = bundle.encode

    def encode_unless_bad(adapter: Adapter) -> tuple[Adapter, bytes]:
        if adapter.card.name == "bad":
            raise CorruptAdapter("expected finite numbers, got NaN or infinity")
        return encode(adapter)

    monkeypatch.setattr(bundle, "encode", encode_unless_bad)
    send("bad")
    send("good")
    serve(trainer)
    assert talk.of("bad", "failed")[0]["code"] == "CorruptAdapter"
    assert talk.of("good", "trained")


def test_a_recipe_without_a_layer_of_this_base_ends_its_own_job_only(
    trainer: JointTrainer, talk: Talk, send: Sender
) -> None:
    send("good")
    send("bad", unet_targets=(), text_learning_rate=0.0)
    serve(trainer)
    assert talk.of("bad", "failed")[0]["code"] == "UsageError"
    assert talk.of("good", "trained")


def test_another_worker_goes_on_from_the_checkpoint(
    trainer: JointTrainer, talk: Talk, send: Sender, tiny_base: BaseModel, objects: FileObjects, tmp_path: Path
) -> None:
    send("a", steps=6)
    for _ in range(3):
        trainer.serve_once()
    assert talk.of("a", "checkpoint")[-1]["step"] == 2
    other = JointTrainer(tiny_base, objects, talk, talk, capacity=3, previews=0)  # type: ignore[arg-type]
    trainer.close()  # two banks on one base would add up
    send("big", steps=8, rank=20)  # the other's loop has another rank
    other.serve_once()
    send("a", steps=6, attempt=2)
    serve(other)
    assert [said["step"] for said in talk.of("a", "joined")] == [0, 2]
    assert [said["step"] for said in talk.of("a", "checkpoint")] == [2, 4]
    other.close()


def test_a_job_that_was_in_a_crash_trains_alone_until_it_got_further(
    trainer: JointTrainer, talk: Talk, send: Sender
) -> None:
    send("retried", steps=6, alone=True)
    send("other", steps=2)
    serve(trainer)
    joined = {job: talk.of(job, "joined")[0]["together"] for job in ("retried", "other")}
    assert joined == {"retried": 1, "other": 2}
    order = talk.events("joined", "checkpoint", "trained")
    assert (
        order.index(("retried", "checkpoint")) < order.index(("other", "joined")) < order.index(("retried", "trained"))
    )
    send("first", steps=4)
    trainer.serve_once()
    send("late", steps=2, alone=True)
    serve(trainer)
    order = talk.events("joined", "trained")
    assert order.index(("first", "trained")) < order.index(("late", "joined"))


def test_a_larger_rank_waits_for_the_loop_to_empty_and_later_jobs_wait_behind_it(
    trainer: JointTrainer, talk: Talk, send: Sender
) -> None:
    send("a", steps=4)
    trainer.serve_once()
    send("big", steps=2, rank=20)
    send("c", steps=2)
    serve(trainer)
    order = talk.events("joined", "trained")
    assert order.index(("a", "trained")) < order.index(("big", "joined")) < order.index(("c", "joined"))
    assert talk.of("c", "joined")[0]["together"] == 2


def test_a_full_device_sends_the_last_to_come_back_and_takes_fewer_from_then_on(
    trainer: JointTrainer, talk: Talk, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingLoop.step

    def full(loop: TrainingLoop) -> Any:
        if len(loop.names) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(loop)

    monkeypatch.setattr(TrainingLoop, "step", full)
    send("a", steps=4)
    send("b", steps=4)
    serve(trainer)
    assert talk.of("b", "full")[0]["concurrency"] == 1
    assert trainer.capacity == 1
    assert [job for job, _ in talk.events("trained")] == ["a", "b"]


def test_a_job_that_does_not_fit_alone_fails_alone(
    trainer: JointTrainer, talk: Talk, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingLoop.step

    def full(loop: TrainingLoop) -> Any:
        if "huge" in loop.names:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return step(loop)

    monkeypatch.setattr(TrainingLoop, "step", full)
    send("a", steps=4)
    send("huge", steps=4)
    serve(trainer)
    assert talk.of("huge", "failed")[0]["code"] == "OutOfMemory"
    assert talk.of("a", "trained")


def test_what_is_no_lack_of_memory_ends_the_process(
    trainer: JointTrainer, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingLoop, "step", lambda loop: (_ for _ in ()).throw(RuntimeError("device-side assert")))
    send("a")
    with pytest.raises(RuntimeError, match="assert"):
        trainer.serve_once()


def test_a_loss_that_is_no_number_fails_one_job_and_a_full_disk_none(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FileObjects.put
    refused: list[str] = []

    def full(store: FileObjects, key: str, content: bytes) -> None:
        if "checkpoints" in key or (key.endswith("adapter.safetensors") and len(refused) < 2):
            refused.append(key)
            raise OSError(28, "No space left on device")
        put(store, key, content)

    monkeypatch.setattr("likeness.worker.joint_trainer.SECONDS_BETWEEN_TRIES", 0.0)
    send("nan", steps=4, unet_learning_rate=0.1, clip_norm=1000)
    send("fine", steps=4)

    def spoiled(tiny_base: BaseModel, order: FineTuneOrder, *given: Any, **named: Any) -> TrainingSet:
        data = training_set(tiny_base, order, *given, **named)
        if order.subject.name == "nan":
            for latent in data.latents:
                latent.fill_(torch.nan)
        return data

    monkeypatch.setattr("likeness.worker.joint_trainer.training_set", spoiled)
    monkeypatch.setattr(FileObjects, "put", full)
    serve(trainer)
    assert talk.of("nan", "failed")[0]["code"] == "NonFiniteLoss"
    assert talk.of("fine", "trained")
    assert all(said["goes_on"] for said in talk.of("fine", "fault"))
    assert len(talk.of("fine", "fault")) >= 2


def test_what_was_learnt_is_measured_and_a_card_that_cannot_be_made_says_why(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    send("a", steps=2)
    serve(trainer)
    order = JobOrder("anna", "a", "x", "dog", "fast", {**SMALL, "steps": 2}).document()
    asked = {"do": "work", "job": "a", "order": order, "attempt": 1, "alone": False, "score": True}
    talk.waiting.put(asked)
    assert trainer.serve_once()
    assert trainer.is_idle
    card = talk.of("a", "scored")[0]["card"]
    assert card["adapter_sha256"] == talk.of("a", "trained")[0]["adapter_sha256"]
    assert json.loads(objects.get(object_keys.score_key("anna", "a"))) == card

    def refuse(*words: object, **named: object) -> None:
        raise InputRefused("expected at least 3 photos with a face, got 0", hint="send more", code="PhotosRefused")

    monkeypatch.setattr("likeness.worker.joint_trainer.score_adapter", refuse)
    talk.waiting.put(asked)
    trainer.serve_once()
    said = talk.of("a", "scored")[1]
    assert (said["card"], said["hint"]) == (None, "send more")


def test_a_job_that_leaves_does_not_wait_for_a_score_card(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects
) -> None:
    send("alone", steps=6)
    send("scored", steps=2)
    serve(trainer)
    content = objects.get(object_keys.trained_key("anna", "alone"))
    order = JobOrder("anna", "scored", "x", "dog", "fast", {**SMALL, "steps": 2}).document()
    asked = {"do": "work", "job": "scored", "order": order, "attempt": 1, "alone": False, "score": True}
    for facts in list(objects.list(object_keys.checkpoints_prefix("anna", "alone"))):
        objects.delete(facts.key)
    send("alone", steps=6, attempt=2)
    send("other", steps=90)
    trainer.serve_once()
    talk.waiting.put(asked)
    talk.comes = [{"do": "leave", "job": "other"}]
    trainer.serve_once()  # drops what it had begun
    assert not talk.of("scored", "scored")
    trainer.serve_once()  # lets out who asked, and begins again
    assert talk.of("other", "left")
    assert talk.of("scored", "scored")
    serve(trainer)
    assert [said["step"] for said in talk.of("alone", "joined")] == [0, 0]
    again = bundle.decode(objects.get(object_keys.trained_key("anna", "alone")))  # trained around two score cards
    assert again.card.content_sha256 == bundle.decode(content).card.content_sha256
    talk.waiting.put(asked)
    talk.comes = [{"do": "leave", "job": "scored"}]
    trainer.serve_once()
    trainer.serve_once()
    assert talk.of("scored", "left")
    assert len(talk.of("scored", "scored")) == 1


def test_a_job_that_leaves_is_gone_when_it_is_said(trainer: JointTrainer, talk: Talk, send: Sender) -> None:
    send("a", steps=50)
    send("b", steps=4)
    trainer.serve_once()
    send.leave("a")
    serve(trainer)
    assert talk.of("a", "left")
    assert not talk.of("a", "trained")
    assert talk.of("b", "trained")
    talk.waiting.put({"do": "stop"})
    assert trainer.serve_once() is False


def test_stopping_takes_checkpoints_of_everybody(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects
) -> None:
    send("a", steps=50, checkpoint_every=50)
    trainer.serve_once()
    talk.waiting.put({"do": "stop"})
    assert trainer.serve_once() is False
    assert list(objects.list(object_keys.checkpoints_prefix("anna", "a")))


def test_one_checkpoint_that_the_store_does_not_take_costs_nobody_elses(
    trainer: JointTrainer, talk: Talk, send: Sender, objects: FileObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in "ab":
        send(job, steps=50, checkpoint_every=50)
    trainer.serve_once()
    real = FileObjects.put

    def put(self: FileObjects, key: str, content: bytes) -> None:
        if key.startswith(object_keys.checkpoints_prefix("anna", "a")):
            raise OSError("full")
        real(self, key, content)

    monkeypatch.setattr(FileObjects, "put", put)
    talk.waiting.put({"do": "stop"})
    assert trainer.serve_once() is False
    assert list(objects.list(object_keys.checkpoints_prefix("anna", "b")))
    assert talk.of("a", "fault")[-1]["goes_on"] and not talk.of("b", "fault")


def test_a_trainer_that_dies_after_the_last_step_and_before_the_handing_over_repeats_no_step(
    trainer: JointTrainer, talk: Talk, send: Sender, tiny_base: BaseModel, objects: FileObjects, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    send("a", steps=3, checkpoint_every=50)
    put = FileObjects.put

    def full(store: FileObjects, key: str, content: bytes) -> None:
        if key.endswith("adapter.safetensors"):
            raise OSError(28, "No space left on device")
        put(store, key, content)

    with monkeypatch.context() as away:
        away.setattr(FileObjects, "put", full)
        while not talk.of("a", "fault"):
            trainer.serve_once()
    trainer.close()
    other = JointTrainer(tiny_base, objects, talk, talk, capacity=2, previews=0)  # type: ignore[arg-type]
    monkeypatch.setattr("likeness.training.loop.draw_batches", lambda *given: pytest.fail("every step has been taken"))
    send("a", steps=3, checkpoint_every=50, attempt=2)
    serve(other)
    assert talk.of("a", "joined")[-1]["step"] == 3
    assert talk.of("a", "trained")[-1]["steps"] == 3
    other.close()


def test_a_preview_is_the_picture_of_the_adapter_as_it_would_be_published(tiny_base: BaseModel) -> None:
    """Also where the text encoder trains at another scale than the U-Net."""
    recipe = recipe_named("fast", steps=2, rank=4, alpha=2, text_rank=2, instance_rows=2, prior_rows=1)
    loop, served = TrainingLoop(tiny_base, capacity=1, rank=4), None
    try:
        slot = loop.join("anna", recipe, random_person(tiny_base, 1), seed=3).slot
        noise = torch.randn(loop.bank.columns, generator=torch.Generator().manual_seed(0))
        loop.bank.write(slot, loop.bank.flat[slot] + 0.3 * noise)  # as after a longer training
        for span in loop.bank.spans:  # the text encoder's rank is smaller
            if span.network == "text_encoder":
                A, B = (factor[slot] for factor in loop.bank.factors(span))
                A[2:], B[:, 2:] = 0, 0
        (request,), ((adapter,),) = preview_requests(FineTuneOrder(Subject("anna"), recipe), slot, 1)
        request = replace(request, steps=2)
        preview = denoise_all(tiny_base, loop.bank, [request], [[adapter]])
        one_scale = replace(adapter, text_encoder_scale=adapter.unet_scale)
        wrong = denoise_all(tiny_base, loop.bank, [request], [[one_scale]])
        weights = loop.leave("anna")
        loop.close()
        served = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=2, rank=4)
        served.write(1, served.row_of(weights, scale=recipe.alpha / recipe.rank))
        published = denoise_all(tiny_base, served, [request], [[AdapterSlot(1)]])
    finally:
        loop.close()
        if served is not None:
            served.close()
    assert relative(preview, published) < 1e-4 < 0.01 < relative(wrong, published)


# an engine on the same device


@pytest.fixture
def shared(
    tiny_base: BaseModel, tiny_base_folder: Path, objects: FileObjects, talk: Talk, tmp_path: Path
) -> Iterator[tuple[JointTrainer, Engine, threading.Event]]:
    """A trainer, an engine with a base of its own, and what the engine's adapters wait for."""
    may_load = threading.Event()
    base = load_base(str(tiny_base_folder))

    def load(key: str) -> Adapter:
        assert may_load.wait(600)
        return person(base, key, 1)

    turns = TrainingTurns(tmp_path, "cpu", wait_s=1e9)
    trainer = JointTrainer(tiny_base, objects, talk, talk, capacity=2, previews=1, turns=turns)  # type: ignore[arg-type]
    with Engine(base, load=load, turns=EngineTurns(tmp_path, "cpu")) as engine:
        yield trainer, engine, may_load
    trainer.close()


def test_no_step_is_taken_while_an_engine_on_the_device_has_requests(
    shared: tuple[JointTrainer, Engine, threading.Event], talk: Talk, send: Sender
) -> None:
    trainer, engine, may_load = shared
    send("a", steps=8, checkpoint_every=1)
    trainer.serve_once()
    before = len(talk.of("a", "checkpoint"))
    assert before == 1
    taken = []

    def try_to_train(event: object) -> None:
        for _ in range(5):
            trainer.serve_once()
        taken.append(len(talk.of("a", "checkpoint")) - before)

    ticket = engine.submit(
        ImageRequest("a portrait", steps=3), adapters=(WeightedAdapter("anna"),), on_step=try_to_train
    )
    try_to_train(None)  # the request waits for its adapter
    may_load.set()
    ticket.result()
    assert taken == [0, 0, 0, 0]
    serve(trainer)
    assert talk.of("a", "trained")[0]["steps"] == 8


def test_class_images_previews_and_score_cards_give_way_too_and_obey_meanwhile(
    shared: tuple[JointTrainer, Engine, threading.Event], talk: Talk, send: Sender, objects: FileObjects
) -> None:
    trainer, engine, may_load = shared
    engine.submit(ImageRequest("a portrait", steps=1), adapters=(WeightedAdapter("anna"),))
    send("a")
    talk.comes = [{"do": "alive"}, {"do": "leave", "job": "a"}]  # heard while it waits for the device
    trainer.serve_once()
    assert talk.events("began", "joined") == [("a", "began")]
    trainer.serve_once()
    assert talk.events("left") == [("a", "left")] and not list(objects.list("class-images"))
    may_load.set()
