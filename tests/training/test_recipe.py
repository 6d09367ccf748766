"""The preset table and what it refuses."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from likeness.diffusion.family import ATTENTION, KLEIN_BASE_4B, LIKENESS_128, SD_15, SD_21, SD_21_BASE, SDXL, Z_IMAGE
from likeness.errors import UsageError
from likeness.training.loop import learning_rate_factor
from likeness.training.recipe import PRESETS, preset, recipe_document, recipe_named

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
FAMILIES = (LIKENESS_128, SD_15, SD_21_BASE, SD_21, SDXL, KLEIN_BASE_4B, Z_IMAGE)
# the columns of the page's table
COLUMNS = ((LIKENESS_128,), (SD_15, SD_21_BASE, SD_21), (SDXL,), (KLEIN_BASE_4B,), (Z_IMAGE,))


@pytest.mark.parametrize("family", ["", *(family.name for family in FAMILIES)])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_within_their_own_limits_and_are_plain_json(name: str, family: str) -> None:
    recipe = recipe_named(name, family)
    assert recipe.name == name
    document = recipe_document(recipe)
    assert json.loads(json.dumps(document)) == document


def test_changes_apply() -> None:
    recipe = recipe_named("fast", steps=7, min_snr_gamma=None, alpha=4)
    assert (recipe.steps, recipe.min_snr_gamma, recipe.alpha) == (7, None, 4)
    assert recipe.rank == PRESETS["fast"].rank


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 20_001),
        ("steps", 10.5),
        ("steps", "10"),
        ("steps", True),
        ("rank", 257),
        ("instance_rows", 0),
        ("prior_rows", -1),
        ("alpha", 0.0),
        ("alpha", float("nan")),
        ("unet_learning_rate", 1.0),
        ("text_learning_rate", -1e-5),
        ("clip_norm", float("inf")),
        ("weight_decay", 2.0),
        ("warmup_steps", -1),
        ("checkpoint_every", 0),
        ("min_snr_gamma", 0.0),
        ("decay", 1),
        ("down_blocks", 0),
        ("unet_targets", "to_q"),
        ("unet_targets", ("to_q", "conv_in")),
        ("text_targets", ("to_q",)),
        ("text_rank", 0),
        ("text_rank", 9),
        ("text_rank", 4.0),
        ("text_rank", True),
        ("uniform_share", 1.5),
        ("timestep_spread", 0.0),
        ("timestep_shift", 0.0),
    ],
)
def test_bad_values_are_refused_and_the_field_is_named(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        recipe_named("standard", **{field: value})


def test_unknown_presets_and_fields_are_refused() -> None:
    with pytest.raises(UsageError, match="fast, standard, thorough, origin-2023") as caught:
        recipe_named("no-such-recipe")
    assert "no-such-recipe" not in str(caught.value)
    with pytest.raises(UsageError, match="unet_learning_rate") as caught:
        recipe_named("fast", learning_speed=1)
    assert "learning_speed" not in str(caught.value)
    with pytest.raises(UsageError, match="recipe fields"):
        recipe_named("fast", name="mine")
    with pytest.raises(UsageError, match="got neither"):
        recipe_named("fast", unet_targets=(), text_targets=())
    with pytest.raises(UsageError, match="text_learning_rate above 0, got neither"):
        recipe_named("fast", unet_targets=(), text_learning_rate=0)
    with pytest.raises(UsageError, match="expected unet_targets as a list of strings, got something else"):
        recipe_named("fast", unet_targets=(["to_q"],))


def test_the_page_of_recipes_has_the_values_of_each_family() -> None:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    stated = {field.strip("`"): values for field, *values in lines}
    for column, families in enumerate(COLUMNS):
        for family in families:
            standard = asdict(preset("standard", family.name))
            assert {field: values[column] for field, values in stated.items()} == {
                field: _shown(standard[field]) for field in stated
            }
    of_all = [asdict(preset("standard", family.name)) for family in FAMILIES]
    differing = {field for field in of_all[0] if len({str(values[field]) for values in of_all}) > 1}
    assert differing - {"unet_targets", "down_blocks"} <= stated.keys()
    sdxl = preset("standard", SDXL.name)
    assert sdxl.unet_targets == ATTENTION and sdxl.down_blocks


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:.3g}"


@pytest.mark.parametrize("family", FAMILIES)
def test_presets_of_a_family_keep_their_proportions_and_what_a_user_sets_wins(family: object) -> None:
    name = family.name  # type: ignore[attr-defined]
    fast, standard, thorough = (preset(one, name) for one in ("fast", "standard", "thorough"))
    assert fast.steps == round(standard.steps / 3) and fast.rank == standard.rank
    assert thorough.steps == round(standard.steps * 8 / 3)
    assert (thorough.rank, thorough.alpha) == (2 * standard.rank, 2 * standard.alpha)
    assert preset("origin-2023", name) == PRESETS["origin-2023"]
    changes = {"steps": 7, "rank": 3, "alpha": 2.0, "timestep_shift": 2.5, "unet_learning_rate": 3e-4}
    changed = asdict(recipe_named("standard", name, **changes))
    assert changed == {**asdict(standard), **changes}


def test_learning_rate_warms_up_and_decays() -> None:
    recipe = recipe_named("standard", steps=100, warmup_steps=10)
    factors = [learning_rate_factor(step, recipe) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    flat = recipe_named("standard", steps=100, warmup_steps=0, decay=False)
    assert {learning_rate_factor(step, flat) for step in range(100)} == {1.0}


def test_two_ranks() -> None:
    origin = recipe_named("origin-2023")
    assert (origin.rank_of("unet"), origin.rank_of("text_encoder")) == (128, 64)
    assert (origin.scale_of("unet"), origin.scale_of("text_encoder")) == (1 / 128, 1 / 64)
    assert recipe_named("standard").rank_of("text_encoder") == 8
    assert recipe_named("standard", text_rank=2).scale_of("text_encoder") == 4
