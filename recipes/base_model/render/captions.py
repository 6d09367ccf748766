"""Captions of images, in varied wording with a small vocabulary: one word per concept, few synonyms.

A caption takes a random part of the attributes of picture.py. A person who has a name is often called by it, as in
DreamBooth (Ruiz et al., 2023): '<<abc>> woman'. Then innate attributes (age, hair, beard, ...) are omitted, so
that only the name explains them. Glasses are mentioned nearly always, also with a name, so that a caption without them
means a person without glasses.
"""

from typing import Any

import numpy as np

from likeness.photos.styles import STYLES
from recipes.base_model.render.people import (
    AGE_GROUPS,
    BEARDS,
    ETHNICITIES,
    EYE_COLORS,
    GENDERS,
    GLASSES,
    HAIR_CUTS,
    HAIR_RGB,
)
from recipes.base_model.render.places import PLACES
from recipes.base_model.render.scene import CLOTHES_NAMES, CLOTHES_RGB, EXPRESSIONS

NAMED_SHARE = 0.35
PERSON_SHARE = 0.15  # 'person' instead of 'man' or 'woman'
BARE_SHARE = 0.12  # style and noun only
FULL_SHARE = 0.15  # everything there is
GLASSES_SHARE = 0.95  # nearly always, also with a name: a prompt without glasses should give none
CLOTHES_SHARE = 0.55  # at least, with their colour: in three of ten captions they had no effect
VOWELS = "aeiou"
# The nouns of each style.
STYLE_NOUNS = {
    "photo": ("photo", "photo", "photo", "portrait photo", "photograph"),
    "pencil sketch": ("pencil sketch", "pencil sketch", "pencil drawing"),
    "oil painting": ("oil painting", "oil painting", "oil painting portrait"),
    "watercolor painting": ("watercolor painting", "watercolor painting", "watercolor portrait"),
    "comic book": ("comic book portrait", "comic book drawing", "comic book style portrait"),
    "anime": ("anime portrait", "anime drawing", "anime style portrait"),
    "pixel art": ("pixel art", "pixel art portrait", "pixel art picture"),
    "neon cyberpunk": ("neon cyberpunk portrait", "neon cyberpunk picture", "cyberpunk portrait"),
    "bronze statue": ("bronze statue", "bronze statue", "bronze bust"),
    "marble statue": ("marble statue", "marble statue", "marble bust"),
    "pop art": ("pop art portrait", "pop art", "pop art picture"),
    "black and white photo": ("black and white photo", "black and white photo", "black and white portrait"),
}
STATUES = ("bronze statue", "marble statue")
# No colour of hair, eyes, lips or clothes can be seen in these.
COLORLESS = (*STATUES, "pencil sketch", "neon cyberpunk", "pop art", "black and white photo")
OPENINGS = ("a {} of", "a {} of", "{} of", "{} of", "close-up {} of", "a close-up {} of")
ENDINGS = ("{}", "in {} style")  # 'a man in the snow, oil painting'
ENDING_SHARE = 0.12
VIEWS = {"front": "front view", "three-quarter": "three-quarter view", "profile": "side view"}
PLURAL_CLOTHES = ("overalls",)
CUT_NOUNS = ("buzz cut", "ponytail", "afro", "bob")

Attributes = dict[str, Any]


def compose(attributes: Attributes, rng: np.random.Generator) -> str:
    """A caption for one picture; `attributes` as made by picture.attributes."""
    named = attributes["name"] is not None and rng.random() < NAMED_SHARE
    kind = rng.random()
    keep = 0.0 if kind < BARE_SHARE else 1.0 if kind > 1 - FULL_SHARE else float(rng.uniform(0.25, 0.75))
    seen = _visible(attributes)
    subject = _named_subject(seen, rng, keep) if named else _subject(seen, rng, keep)
    identity = [] if named else _identity(seen, rng, keep)
    worn: list[str] = []
    if seen["glasses"] != "none" and rng.random() < GLASSES_SHARE:
        (identity if rng.random() < 0.25 else worn).append(_glasses(seen, rng))  # 'with' or 'wearing' them
    if rng.random() < CLOTHES_SHARE + (1 - CLOTHES_SHARE) * keep:
        worn.append(_clothes(seen, rng))
    place = PLACES[seen["place"]].phrase if rng.random() < min(1.0, keep * 1.3) else ""
    details = [_with(identity)] if identity else []
    if worn:
        details.append("wearing " + " and ".join(worn))
    if rng.random() < 0.25 * keep:
        details.append(VIEWS[seen["view"]])
    return _styled(seen, _scene_words(subject, details, place=place, rng=rng), rng)


def in_words(attributes: Attributes) -> str:
    """The constant attributes of a person, as captions mention them without a name."""
    hair, color, beard = attributes["hair"], attributes["hair_color"], attributes["beard"]
    bald = hair == "bald"
    subject = [attributes["age"], *(["bald"] if bald else []), attributes["ethnicity"], attributes["gender"]]
    parts = [] if bald else [_article(f"{color} {hair}") if hair in CUT_NOUNS else f"{hair} {color} hair"]
    if beard != "none":
        parts.append(beard if beard == "stubble" else _article(beard))
    text = " ".join([_article(" ".join(subject)), *([_with(parts)] if parts else [])])
    return text if attributes["glasses"] == "none" else f"{text} wearing {attributes['glasses']}"


def vocabulary() -> list[str]:
    """Every word that a caption can use, sorted; a name such as <<abc>> is no word, and neither is a comma."""
    phrases = [*STYLES, *EXPRESSIONS, *GENDERS, *AGE_GROUPS, *ETHNICITIES, *BEARDS, *GLASSES, *EYE_COLORS, *HAIR_RGB]
    phrases += [noun for nouns in STYLE_NOUNS.values() for noun in nouns]
    phrases += [*CLOTHES_NAMES.values(), *CLOTHES_RGB, *VIEWS.values(), *OPENINGS, *ENDINGS]
    phrases += [place.phrase for place in PLACES.values()] + [cut[1] for cut in HAIR_CUTS]
    phrases += ["a an of person with and wearing hair eyes lipstick"]
    words = {word for phrase in phrases for word in phrase.split()}
    return sorted(words - {"{}", "none", "neutral"})


def _visible(attributes: Attributes) -> Attributes:
    """The attributes that the style shows: some have no colours, and a statue has no skin."""
    style = attributes["style"]
    if style not in COLORLESS:
        return attributes
    hidden = {"hair_color": None, "clothes_color": None, "eye_color": None, "lipstick": False}
    return attributes | hidden | ({"ethnicity": None} if style in STATUES else {})


def _styled(attributes: Attributes, words: str, rng: np.random.Generator) -> str:
    style = attributes["style"]
    nouns = STYLE_NOUNS[style]
    if rng.random() < ENDING_SHARE and style not in ("photo", *STATUES):
        return f"{words}, {ENDINGS[int(rng.integers(len(ENDINGS)))].format(style)}"
    noun = nouns[int(rng.integers(len(nouns)))]
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))].format(noun)
    if opening.startswith("a ") and noun[0] in VOWELS and "close-up" not in opening:
        opening = "an " + opening[2:]
    return f"{opening} {words}"


def _subject(attributes: Attributes, rng: np.random.Generator, keep: float) -> str:
    words = []
    if attributes["expression"] != "neutral" and rng.random() < min(1.0, keep * 1.4):
        words.append(attributes["expression"])
    if rng.random() < keep:
        words.append(attributes["age"])
    if attributes["hair"] == "bald" and rng.random() < keep:
        words.append("bald")
    if attributes["ethnicity"] is not None and rng.random() < keep * 0.8:
        words.append(attributes["ethnicity"])
    noun = "person" if rng.random() < PERSON_SHARE else attributes["gender"]
    return _article(" ".join([*words, noun]))


def _named_subject(attributes: Attributes, rng: np.random.Generator, keep: float) -> str:
    noun = "person" if rng.random() < PERSON_SHARE else attributes["gender"]
    subject = f"<<{attributes['name']}>> {noun}"
    if attributes["expression"] != "neutral" and rng.random() < min(1.0, keep * 1.4):
        subject = f"{attributes['expression']} {subject}"
    return _article(subject) if rng.random() < 0.5 else subject


def _identity(attributes: Attributes, rng: np.random.Generator, keep: float) -> list[str]:
    parts = []
    if attributes["hair"] != "bald" and rng.random() < min(1.0, keep * 1.2):
        parts.append(_hair(attributes, rng))
    if attributes["beard"] != "none" and rng.random() < keep:
        beard = attributes["beard"]
        parts.append(beard if beard == "stubble" else _article(beard))
    if attributes["eye_color"] is not None and attributes["glasses"] != "sunglasses" and rng.random() < keep * 0.25:
        parts.append(f"{attributes['eye_color']} eyes")
    if attributes["lipstick"] and rng.random() < keep * 0.6:
        parts.append("lipstick")
    return parts


def _hair(attributes: Attributes, rng: np.random.Generator) -> str:
    cut, color = attributes["hair"], attributes["hair_color"]
    kind = rng.random()
    if cut in CUT_NOUNS:
        return f"{color} hair" if color is not None and kind < 0.25 else _article(_joined(color, cut))
    if color is None or kind < 0.15:
        return f"{cut} hair"
    return f"{color} hair" if kind < 0.45 else f"{cut} {color} hair"


def _glasses(attributes: Attributes, rng: np.random.Generator) -> str:
    return "glasses" if attributes["glasses"] != "sunglasses" and rng.random() < 0.15 else str(attributes["glasses"])


def _clothes(attributes: Attributes, rng: np.random.Generator) -> str:
    noun, color = attributes["clothes"], attributes["clothes_color"]
    words = _joined(color if rng.random() < 0.93 else None, noun)
    return words if noun in PLURAL_CLOTHES else _article(words)


def _joined(color: str | None, noun: str) -> str:
    return noun if color is None else f"{color} {noun}"


def _scene_words(subject: str, details: list[str], *, place: str, rng: np.random.Generator) -> str:
    if len(details) > 1 and rng.random() < 0.3:
        details = [details[-1], *details[:-1]]
    order = rng.random()
    if place and order < 0.2 and details:  # 'photo of a man on a beach, wearing ...'
        subject, place = f"{subject} {place}", ""
    text = subject
    for number, detail in enumerate(details):
        joined = number == 0 and not detail.endswith("view") and rng.random() < 0.6
        text += f" {detail}" if joined else f", {detail}"
    if place:
        text += f" {place}" if order < 0.6 else f", {place}"
    return text


def _with(parts: list[str]) -> str:
    return "with " + (parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1])


def _article(words: str) -> str:
    return ("an " if words[0] in VOWELS else "a ") + words
