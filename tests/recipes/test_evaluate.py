"""The evaluation of the base: what counts as asked, who is nearest, the judge, the table and the model card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from recipes.base_model import classifier, evaluate, gates, likeness_gate, model_card, prompts
from recipes.base_model.gates import GOALS, Measured
from recipes.base_model.render.captions import STYLE_NOUNS
from recipes.base_model.render.places import PLACES
from recipes.base_model.render.styles import STYLES
from tests.tiny import build_tiny_folder

CARD = Path(__file__).parents[2] / "src/likeness/assets/base/README.md"
TOLD = {
    "style": "photo", "place": "city", "gender": "woman", "age": "young", "ethnicity": "asian", "hair": "bob",
    "hair_color": "dark brown", "beard": "none", "glasses": "round glasses", "clothes": "sweater",
    "clothes_color": "brown", "expression": "neutral", "framing": "portrait", "view": "front", "eye_color": "brown",
    "lipstick": False, "name": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("photo of a woman", {"style"}),
        ("photo of a woman wearing a brown sweater in a city", {"style", "place"}),
        ("photo of a woman with a dark brown bob", {"style", "hair colour"}),
        ("photo of a woman with dark brown hair, wearing round glasses", {"style", "hair colour", "glasses"}),
        ("photo of a woman with brown eyes, in an office", {"style"}),
    ],
)
def test_only_what_the_words_say_is_asked(text: str, heads: set[str]) -> None:
    asked = prompts.asked_by(text, TOLD)
    assert set(asked) == heads
    assert asked.get("hair colour", "dark") == "dark" and asked.get("glasses", "glasses") == "glasses"


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
    assert likeness_gate.nearest(points, gallery).tolist() == [2, -1, 0]
    assert np.isnan(likeness_gate.mean_distances(points, gallery[:4])).tolist() == [False, True, False]


def test_a_goal_knows_its_direction() -> None:
    assert GOALS["speed"].is_met(3.9) and not GOALS["speed"].is_met(4.1)
    assert GOALS["faces"].is_met(95.0) and not GOALS["faces"].is_met(94.9)
    assert GOALS["real distance"].is_met(0.1) is None


def document(**values: float) -> dict[str, object]:
    rows = evaluate.rows_of({key: Measured(value, 7, "a remark") for key, value in values.items()})
    return {"date": "2001-02-03", "machine": "an abacus", "commit": "abc", "figures": rows}


def test_a_figure_that_is_not_measured_again_keeps_its_line() -> None:
    first = model_card.figures_table("", document(speed=5.0))
    second = model_card.figures_table(first, document(size=30.0))
    assert "| 5 s (goal missed) | 7 | a remark | 2001-02-03, an abacus, commit abc |" in second
    assert "| 30 MB | 7 |" in second
    assert second.count("not measured") == len(GOALS) - 2
    assert model_card.figures_table(second, None) == second


def test_the_card_is_renewed_only_between_its_marks(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD.read_text())
    model_card.write_card(card)
    assert card.read_text() == CARD.read_text(), "run python -m recipes.base_model.model_card on the card"
    model_card.write_card(card, document(faces=99.0))
    assert "99 %" in card.read_text()
    outside = [text.split(model_card.FIGURES[0])[0] + text.split(model_card.FIGURES[1])[1] for text in (
        card.read_text(), CARD.read_text())]  # fmt: skip
    assert outside[0] == outside[1]
    card.write_text("no marks")
    with pytest.raises(ValueError, match="expected the marks"):
        model_card.write_card(card)


def test_the_command_writes_one_json_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "SPEED_STEPS", 2)
    base, out = build_tiny_folder(tmp_path / "base"), tmp_path / "result.json"
    evaluate.main(["--base", str(base), "--assets", "none", "--only", "size,speed", "--out", str(out)])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads(out.read_text())
    rows = {row["figure"]: row for row in printed["figures"]}
    true_size = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
    assert rows["size"]["value"] == pytest.approx(true_size / 1e6, abs=1e-3) and rows["size"]["met"] is True
    assert rows["speed"]["value"] > 0 and rows["speed"]["samples"] == 3


@pytest.mark.parametrize("wrong", [["--only", "beauty"], ["--people", "0"], ["--card", "x", "--tune-steps", "1"]])
def test_a_wrong_option_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--assets", "none", *wrong])
    assert "expected" in capsys.readouterr().err
