"""The evaluation of the base: what counts as asked, who is nearest, the judge, the table and the model card."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from fixtures.tiny import random_person, random_row
from likeness.diffusion.lora import LoraBank
from likeness.photos.styles import STYLES
from likeness.training.data import TrainingSet
from likeness.training.recipe import FineTuneRecipe
from likeness.types import Photo
from recipes.base_model import classifier, evaluate, likeness_gate, model_card, prompts, tuning
from recipes.base_model.exam import Exam, Settings
from recipes.base_model.gates import GOALS, Measured
from recipes.base_model.render import captions
from recipes.base_model.render.captions import STYLE_NOUNS
from recipes.base_model.render.places import PLACES

CARD = Path(__file__).parents[2] / "src/likeness/assets/base/README.md"
TOLD = {
    "style": "photo", "place": "city", "gender": "woman", "age": "young", "ethnicity": "asian", "hair": "bob",
    "hair_color": "dark brown", "beard": "none", "glasses": "round glasses", "clothes": "sweater",
    "clothes_color": "brown", "expression": "neutral", "view": "front", "eye_color": "brown",
    "lipstick": False, "name": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("photo of a woman", {"style"}),
        ("photo of a woman wearing a brown sweater in a city", {"style", "place", "clothes colour"}),
        ("photo of a woman wearing glasses and a sweater", {"style", "glasses"}),
        ("photo of a woman with a dark brown bob", {"style", "hair colour"}),
        ("photo of a woman with dark brown hair, wearing round glasses", {"style", "hair colour", "glasses"}),
        ("photo of a woman with brown eyes, in an office", {"style"}),
    ],
)
def test_only_what_the_words_say_is_asked(text: str, heads: set[str]) -> None:
    asked = prompts.asked_by(text, TOLD)
    assert set(asked) == heads
    assert asked.get("hair colour", "dark") == "dark" and asked.get("glasses", "glasses") == "glasses"
    assert asked.get("clothes colour", "brown") == "brown"


def test_what_a_style_does_not_show_is_not_asked() -> None:
    text = "bronze statue of a woman with dark brown hair in a city"
    assert set(prompts.asked_by(text, TOLD | {"style": "bronze statue"})) == {"style", "place"}
    assert set(prompts.asked_by(text, TOLD | {"style": "pop art"})) == {"style"}


def test_portraits_go_through_all_places_and_styles() -> None:
    texts = prompts.portrait_prompts("<<TOK>> man", 2 * len(PLACES))
    assert all(sum(place.phrase in text for text in texts) >= 2 for place in PLACES.values())
    assert prompts.style_prompts("<<TOK>> man").keys() == STYLES.keys() == STYLE_NOUNS.keys()


def test_the_judge_learns_and_its_accuracy_is_that_of_its_answers() -> None:
    styles = list(STYLES)[:3]
    labels = [{"style": styles[k % 3]} for k in range(48)]
    images = torch.randint(40, (48, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for k in range(48):
        images[k, k % 3] += 180  # red, green or blue
    net = classifier.train(images[:36], labels[:36], samples=64 * 6, device=torch.device("cpu"))
    assert classifier.Judge.measured(net, images[36:], labels[36:]).accuracy == {"style": 1.0}
    wrong = [{"style": styles[(k + 1) % 3]} for k in range(36, 48)]
    assert classifier.Judge.measured(net, images[36:], wrong).accuracy == {"style": 0.0}


def test_rare_glasses_weigh_as_much_as_none() -> None:
    kinds = ["none"] * 70 + ["glasses"] * 20 + ["sunglasses"] * 10
    targets = classifier.label_indices([{"style": "photo", "glasses": kind} for kind in kinds])
    weights = dict(zip(classifier.HEADS, classifier.class_weights(targets), strict=True))
    shares = weights["glasses"] * torch.tensor([70.0, 20, 10])
    torch.testing.assert_close(shares, torch.full((3,), 100 / 3))
    assert (weights["style"] == 1).all() and (weights["clothes colour"] == 1).all()


def test_the_judge_tells_how_often_it_sees_glasses_where_there_are_none() -> None:
    net = classifier.AttributeNet().eval()
    images = torch.randint(255, (8, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = [row["glasses"] for row in classifier.named(net, images)]
    judge = classifier.Judge.measured(net, images, [{"glasses": "none"}] * 8)
    assert judge.false_glasses == sum(glasses != "none" for glasses in found) / 8
    assert "glasses" not in judge.accuracy  # that one is of those who wear some


def test_a_kept_judge_answers_alike(tmp_path: Path) -> None:
    net = classifier.AttributeNet().eval()
    classifier.save(net, tmp_path / "judge.safetensors")
    images = torch.randint(255, (4, 3, 128, 128), dtype=torch.uint8)
    assert classifier.named(classifier.load(tmp_path / "judge.safetensors", torch.device("cpu")), images) == (
        classifier.named(net, images)
    )


def test_a_portrait_without_a_face_is_nobodys() -> None:
    gallery = np.random.default_rng(0).normal(size=(5, 128))
    gallery[4] = np.inf  # a person of whom no face was found
    points = np.stack([gallery[2] + 0.01, np.full(128, np.nan), gallery[0]])
    assert likeness_gate.ranks(points, gallery, 2)[[0, 1]].tolist() == [1, 5]
    assert likeness_gate.ranks(points, gallery, 4)[0] == 5
    distances = np.linalg.norm(gallery[:4] - points[2], axis=-1)
    assert likeness_gate.ranks(points, gallery, 3)[2] == 1 + (distances < distances[3]).sum()
    assert np.isnan(likeness_gate.mean_distances(points, gallery[:4])).tolist() == [False, True, False]


def test_looks_in_words_are_those_of_a_caption_without_a_name() -> None:
    words = captions.in_words(TOLD)
    assert words == "a young asian woman with a dark brown bob wearing round glasses"
    bald = TOLD | {"gender": "man", "age": "old", "hair": "bald", "hair_color": None, "beard": "goatee"}
    assert captions.in_words(bald | {"glasses": "none"}) == "an old bald asian man with a goatee"
    curly = TOLD | {"gender": "man", "hair": "curly", "beard": "stubble", "glasses": "none"}
    assert captions.in_words(curly) == "a young asian man with curly dark brown hair and stubble"
    assert {word for text in (words, captions.in_words(bald)) for word in text.split()} <= set(captions.vocabulary())


@pytest.fixture
def tiny_exam(tiny_base_folder: Path, tmp_path: Path) -> Exam:
    (tmp_path / "assets.npz").write_bytes(b"a pack")
    (tmp_path / "work").mkdir()
    return Exam(Settings(str(tiny_base_folder), tmp_path, None, tmp_path / "work", tune={"steps": 2}))


def test_a_kept_adapter_is_used_by_other_sampling_and_not_by_another_recipe(
    tiny_exam: Exam, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [tuning.Sitter(seed, "man", [Photo("a.png", bytes([seed]))]) for seed in range(3)]
    recipe, trained = tuning.tuning_recipe(tiny_exam), []

    def latents(exam: Exam, sitter: tuning.Sitter, recipe: FineTuneRecipe) -> TrainingSet:
        trained.append(sitter.seed)
        return random_person(exam.base, sitter.seed or 0)

    monkeypatch.setattr(tuning, "training_set", latents)
    monkeypatch.setattr(tuning, "TOGETHER", 2)
    first = tuning.adapters(tiny_exam, people[:2], recipe)
    assert trained == [0, 1] and not torch.equal(*first)
    other = Exam(replace(tiny_exam.settings, guidance=5.0, portraits=1))
    again = tuning.adapters(other, people, recipe)
    assert trained == [0, 1, 2] and all(torch.equal(a, b) for a, b in zip(first, again[:2], strict=True))
    tuning.adapters(other, people[:1], replace(recipe, steps=1))
    assert trained == [0, 1, 2, 0]
    tuning.adapters(other, [replace(people[0], photos=[Photo("a.png", b"another")])], recipe)
    assert trained == [0, 1, 2, 0, 0]


def test_a_fine_tune_depends_on_all_weights_but_the_decoders(tiny_exam: Exam) -> None:
    before = tiny_exam.tuned_sha256
    for part, layer, is_same in (("vae", "decoder", True), ("vae", "encoder", False), ("unet", "conv_in", False)):
        other = Exam(tiny_exam.settings)
        other.base.parts[part].get_submodule(layer).requires_grad_(False).apply(halved)
        assert (other.tuned_sha256 == before) is is_same, part


def halved(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter.mul_(0.5)


def test_a_recipe_is_changed_by_the_command_line(tmp_path: Path) -> None:
    options = evaluate.parsed(["--assets", "none", "--tune", "steps=250", "face_gain=2.5"])
    recipe = tuning.tuning_recipe(Exam(evaluate.settings_of(options, tmp_path)))
    assert (recipe.steps, recipe.face_gain) == (250, 2.5)


def test_portraits_are_those_of_the_persons_own_adapter(tiny_exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = Exam(replace(tiny_exam.settings, portraits=2, steps=2))
    people = [tuning.Sitter(seed, "man", [Photo("a.png", bytes([seed]))]) for seed in range(2)]
    bank = LoraBank(exam.base.networks, exam.base.family.trained, slots=2, rank=8)
    rows = [random_row(bank, seed) for seed in range(2)]
    bank.close()
    monkeypatch.setattr(likeness_gate, "sitters", lambda exam: people)
    monkeypatch.setattr(likeness_gate, "adapters", lambda exam, everybody, recipe: rows)
    both = likeness_gate.tuned_portraits(exam)
    assert [one.photos.shape for one in both] == [(2, 128, 128, 3)] * 2
    assert both[0].styled.keys() == STYLE_NOUNS.keys()
    assert (both[0].photos != both[1].photos).any()
    people.pop(0), rows.pop(0)
    assert (likeness_gate.tuned_portraits(exam)[0].photos == both[1].photos).all()


def test_kept_descriptors_are_those_that_were_made(tiny_exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def points(exam: Exam, seed: int, count: int, *, stream: int, styles: object) -> np.ndarray:
        made.append(seed)
        return np.full((count if seed else 0, 128), seed + stream, float)

    monkeypatch.setattr(likeness_gate, "true_descriptors", points)
    for _ in range(2):
        kept = likeness_gate.kept_descriptors(tiny_exam, [0, 7], 3, stream=5)
        assert [part.shape for part in kept] == [(0, 128), (3, 128)] and (kept[1] == 12).all()
    assert made == [0, 7]
    likeness_gate.kept_descriptors(tiny_exam, [0, 7], 3, stream=6)
    assert made == [0, 7, 0, 7]


def test_a_goal_knows_its_direction() -> None:
    assert GOALS["speed"].is_met(3.9) and not GOALS["speed"].is_met(4.1)
    assert GOALS["style"].is_met(97.0) and not GOALS["style"].is_met(96.9)
    band = GOALS["band 8-16"]
    assert [band.is_met(value) for value in (0.69, 0.7, 1.15, 1.16)] == [False, True, True, False]
    assert GOALS["stranger distance"].is_met(0.1) is None
    told = [GOALS[name].words for name in ("style", "broken faces", "band 8-16", "faces")]
    assert told == [">= 97 %", "<= 8 %", "0.7 to 1.15", "-"]


def test_neither_decibels_nor_a_found_face_are_gates() -> None:
    plain = ("reconstruction of renders", "reconstruction of photos", "faces", "jitter")
    assert all(GOALS[name].is_met(0.0) is None for name in plain)


HASHES = model_card.Hashes("01234567", "89abcdef")


def document(**values: float) -> dict[str, object]:
    rows = evaluate.rows_of({key: Measured(value, 7, "a remark") for key, value in values.items()})
    when = {"date": "2001-02-03", "machine": "an abacus", "commit": "abc"}
    return when | {"figures": rows, "weights": asdict(HASHES)}


def test_a_figure_that_is_not_measured_again_keeps_its_line() -> None:
    first = model_card.figures_table("", document(speed=5.0), HASHES)
    second = model_card.figures_table(first, document(size=30.0), HASHES)
    assert "| 5 s (goal missed) | 7 | a remark | base 01234567 | 2001-02-03, an abacus, commit abc |" in second
    assert "| 30 MB | 7 |" in second
    assert second.count("not measured") == len(GOALS) - 2
    assert model_card.figures_table(second, None, HASHES) == second


def test_a_figure_that_is_kept_is_judged_by_todays_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = model_card.figures_table("", document(speed=3.5), HASHES)
    assert "| <= 4 s | 3.5 s | 7 |" in table
    monkeypatch.setitem(GOALS, "speed", replace(GOALS["speed"], most=3))
    stricter = model_card.figures_table(table, None, HASHES)
    assert "| <= 3 s | 3.5 s (goal missed) | 7 |" in stricter
    monkeypatch.setitem(GOALS, "speed", replace(GOALS["speed"], most=4))
    assert model_card.figures_table(stricter, None, HASHES) == table


def test_no_figure_outlives_the_weights_that_it_was_measured_on() -> None:
    measured = document(**{"speed": 5.0, "reconstruction of renders": 30.0})
    table = model_card.figures_table("", measured, HASHES)
    new_base = model_card.figures_table(table, None, replace(HASHES, base="ffffffff"))
    assert "30 dB" in new_base and "vae 89abcdef" in new_base and "5 s" not in new_base
    new_decoder = model_card.figures_table(table, None, model_card.Hashes("ffffffff", "ffffffff"))
    assert new_decoder.count("not measured") == len(GOALS)
    with pytest.raises(ValueError, match="expected results of the weights"):
        model_card.figures_table(table, measured, replace(HASHES, base="ffffffff"))


def test_the_card_names_every_word_of_the_captions() -> None:
    named = set(re.split(r"[\s,|]+", model_card.words_table()))
    said_by_grammar = {"a", "an", "of", "with", "and", "wearing", "hair", "eyes"}
    assert set(captions.vocabulary()) - said_by_grammar <= named


def test_the_card_tells_of_the_training_from_its_log(tmp_path: Path) -> None:
    run = {"machine": "an abacus", "processes": 2, "batch": 40, "learning_rate": 7e-4}
    loss = {"s": 120, "step": 9, "samples": 720, "images": 1000, "people": 250, "loss": 0.5}
    lines = [
        json.dumps(line) for line in ({"run": run}, loss, {"run": run | {"learning_rate": 8e-4}}, loss | {"s": 240})
    ]
    table = model_card.training_table(lines)
    for words in ("| 1,000 of 250 people |", "| 720 in 9 steps |", "| 4 |", "| an abacus: 2 x 40 rows a step |"):
        assert words in table
    assert "| 0.0007, 0.0008 |" in table
    card = tmp_path / "README.md"
    card.write_text(CARD.read_text())
    model_card.write_card(card, log=lines, hashes=HASHES)
    assert table in card.read_text()
    with pytest.raises(ValueError, match="expected a log"):
        model_card.training_table(lines[:1])


def test_the_card_is_renewed_only_between_its_marks(tmp_path: Path) -> None:
    card, shipped = tmp_path / "README.md", model_card.hashes_of(CARD.parent)
    card.write_text(CARD.read_text())
    model_card.write_card(card, hashes=shipped)
    assert card.read_text() == CARD.read_text(), "run python -m recipes.base_model.model_card on the card"
    model_card.write_card(card, document(faces=99.0), hashes=HASHES)
    assert "99 %" in card.read_text()
    outside = [text.split(model_card.FIGURES[0])[0] + text.split(model_card.FIGURES[1])[1] for text in (
        card.read_text(), CARD.read_text())]  # fmt: skip
    assert outside[0] == outside[1]
    card.write_text("no marks")
    with pytest.raises(ValueError, match="expected the marks"):
        model_card.write_card(card, hashes=HASHES)


def test_the_command_writes_one_json_line(
    tiny_base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out, photos = tiny_base_folder, tmp_path / "result.json", tmp_path / "of-a-friend"
    told = ["--photos", str(photos), "--class-noun", "woman"]
    evaluate.main(
        ["--base", str(base), "--assets", "none", "--only", "size,speed", "--out", str(out), "--steps", "2", *told]
    )
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads(out.read_text())
    rows = {row["figure"]: row for row in printed["figures"]}
    true_size = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
    assert rows["size"]["value"] == pytest.approx(true_size / 1e6, abs=1e-3) and rows["size"]["met"] is True
    assert (printed["settings"]["photos"], printed["settings"]["class_noun"]) == ("of-a-friend", "woman")
    assert str(tmp_path) not in out.read_text()
    assert printed["weights"] == asdict(model_card.hashes_of(base))
    assert rows["speed"]["value"] > 0 and rows["speed"]["samples"] == 3


@pytest.mark.parametrize("wrong", [["--only", "beauty"], ["--people", "0"], ["--card", "x", "--tune", "steps=1"]])
def test_a_wrong_option_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--assets", "none", *wrong])
    assert "expected" in capsys.readouterr().err
