"""Prompts with known content: captions of the renderer's grammar, with their attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .classifier import Labels, visible_labels
from .render.assets import Assets
from .render.captions import CUT_NOUNS, STYLE_NOUNS, compose
from .render.dataset import held_out_seeds
from .render.people import GLASSES, sample_person
from .render.picture import attributes
from .render.places import PLACES
from .render.scene import sample_scene


@dataclass(frozen=True)
class Prompt:
    """A caption and its attributes, as classes of the judge."""

    text: str
    asked: Labels


def asked_by(text: str, told: Mapping[str, Any]) -> Labels:
    """The attributes that the caption mentions and an image shows."""
    said = {"style"}
    if PLACES[told["place"]].phrase in text:
        said.add("place")
    if says_glasses(text):
        said.add("glasses")
    hair, color = told["hair"], told["hair_color"]
    if color is not None and (f"{color} hair" in text or (hair in CUT_NOUNS and f"{color} {hair}" in text)):
        said.add("hair colour")
    if f"{told['clothes_color']} {told['clothes']}" in text:
        said.add("clothes colour")
    return {head: label for head, label in visible_labels(told).items() if head in said}


def says_glasses(text: str) -> bool:
    """Whether a prompt mentions glasses of any kind; without, the person wears none."""
    return "glasses" in text


def composed_prompts(count: int, assets: Assets, seed: int = 0) -> list[Prompt]:
    """Captions as in the training data, of new scenes and held-out people.

    Nobody is called by a name, and every kind of glasses is as likely as none, so that few pictures measure them.
    """
    prompts = []
    for k in range(count):
        rng = np.random.default_rng([seed, k, 31])
        person = sample_person(int(rng.choice(held_out_seeds())), assets)
        told = attributes(person, sample_scene(rng, person)) | {"name": None, "glasses": str(rng.choice(GLASSES))}
        text = compose(told, rng)
        prompts.append(Prompt(text, asked_by(text, told)))
    return prompts


def photo_prompts(count: int, assets: Assets, seed: int = 1) -> list[Prompt]:
    """Captions of photos as in the training data, of new scenes and held-out people, glasses as frequent as there.

    The label 'glasses' is always set, also where the caption does not mention them. Nobody is called by a name.
    """
    prompts: list[Prompt] = []
    scene = 0
    while len(prompts) < count:
        rng = np.random.default_rng([seed, scene, 31])
        scene += 1
        person = sample_person(int(rng.choice(held_out_seeds())), assets)
        told = attributes(person, sample_scene(rng, person)) | {"name": None}
        if told["style"] == "photo":
            text = compose(told, rng)
            prompts.append(Prompt(text, {**asked_by(text, told), "glasses": told["glasses"]}))
    return prompts


def portrait_prompts(who: str, count: int) -> list[str]:
    """'photo of <<TOK>> man in a city': all places in turn, every second one a close-up."""
    phrases = [place.phrase for place in PLACES.values()]
    return [f"{('photo', 'close-up photo')[k % 2]} of {who} {phrases[k % len(phrases)]}" for k in range(count)]


def style_prompts(who: str) -> dict[str, str]:
    """style -> 'bronze statue of <<TOK>> man', for every style."""
    return {style: f"{nouns[0]} of {who}" for style, nouns in STYLE_NOUNS.items()}
