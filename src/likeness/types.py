"""The nouns that travel between modules. Standard library and numpy only; every type is frozen.

Shape alphabet of the whole project: B rows, N tokens, C channels, H W pixels, h w latent cells, S slots,
r rank, d width.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import Mismatch, UsageError

Verdict = Literal["accepted", "warned", "refused"]
Kind = Literal["person", "thing", "style"]  # of a subject
KINDS: tuple[Kind, ...] = get_args(Kind)
Unread = Literal["not_an_image", "too_large", "compression", "damaged", "not_readable", "too_many"]
# networks that adapters modify; sub-folders of a base
Network = Literal["unet", "text_encoder", "text_encoder_2", "transformer"]

MAX_SEED = 2**63 - 1  # what a torch.Generator takes
SAMPLER_NAMES = ("dpmpp_2m", "ddim", "euler")  # implemented in diffusion.samplers
PNG, JPEG = "image/png", "image/jpeg"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_WORD = 100


def encodes_text(network: Network) -> bool:
    """Whether a network is a text encoder; the other network of a base denoises."""
    return network.startswith("text_encoder")


def checked_name(name: str) -> str:
    """Return `name` if it can name an adapter or a subject everywhere (files, URLs, object keys).

    Raises:
        UsageError: it has characters outside a-z 0-9 _ - or is longer than 63.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "expected a name of 1 to 63 characters of a-z, 0-9, _ and -, with a letter or digit at the start",
            hint="for example: anna-2",
        )
    return name


TRAINING_ENDPOINT = "fine-tuning"  # name of the endpoint in the SageMaker protocol, unless the settings have another

# All reserved names, with their meaning.
BARE_BASE = "base"  # in place of an adapter: none
SETUP_MODEL = "model_setup"  # the reference solution's clients invoke it first; it has no effect here
HOUSE_ADAPTERS = "house-adapters"  # a tenant: the owner of the house adapters
RESULTS = "async"  # a folder of the object store: results of the SageMaker protocol, of all tenants
CLASS_IMAGES = "class-images"  # a folder of the object store: the class images, which all tenants share
_RESERVED_NAMES = {
    BARE_BASE: "the base without an adapter",
    SETUP_MODEL: "the model that SageMaker's clients set up first",
}
_RESERVED_TENANTS = {
    RESULTS: "the results of all tenants",
    CLASS_IMAGES: "the class images of all tenants",
    HOUSE_ADAPTERS: "the adapters that all tenants can use",
}


def adapter_named(name: str | None) -> str | None:
    """The adapter of this name; None, the bare base, for no name and for `base`."""
    return None if name in (None, "", BARE_BASE) else name


MAX_BLEND = 4  # adapters of one image
MAX_BLEND_TEXT = 300  # characters of `blend_of`'s text
_WEIGHT = re.compile(r"\d{1,3}(\.\d{0,20})?(e-?\d{1,3})?|\.\d{1,20}", re.ASCII)


@dataclass(frozen=True)
class WeightedAdapter:
    """An adapter of an image and the factor of its weights. Raises UsageError: a weight not in 0..2."""

    name: str  # in a request; in the engine its key
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 2:
            raise UsageError(f"expected an adapter's weight from 0 to 2, got {self.weight}", param="adapter")


Blend = tuple[WeightedAdapter, ...]  # of one image; the first is its subject; empty: the bare base


def blend_of(text: str | None) -> Blend:
    """The adapters of `anna+oil@0.6`: names joined by +, each with an optional @weight. None, '' and `base`: none.

    Raises:
        UsageError: not of this form, a weight out of range, or see `checked_blend`.
    """
    if adapter_named(text) is None:
        return ()
    return checked_blend([_weighted(part) for part in str(text).split("+")])


def checked_blend(adapters: Iterable[WeightedAdapter]) -> Blend:
    """The adapters of one image. Raises UsageError: more than four, one of them twice, or `base` among others."""
    blend = tuple(adapters)
    if len(blend) > MAX_BLEND:
        raise UsageError(f"expected at most {MAX_BLEND} adapters in an image, got {len(blend)}", param="adapter")
    names = [one.name for one in blend]
    if BARE_BASE in names or len(set(names)) != len(names):
        raise UsageError(
            f"expected each adapter once, and {BARE_BASE} alone", hint="for example: anna+oil@0.6", param="adapter"
        )
    return blend


def blend_text(blend: Blend) -> str | None:
    """The inverse of `blend_of`; None: no adapter."""
    return "+".join(one.name if one.weight == 1 else f"{one.name}@{one.weight!r}" for one in blend) or None


def _weighted(text: str) -> WeightedAdapter:
    name, at, weight = text.partition("@")
    if not at:
        return WeightedAdapter(checked_name(name))
    if not _WEIGHT.fullmatch(weight):
        raise UsageError("expected a number after @", hint="for example: anna+oil@0.6", param="adapter")
    return WeightedAdapter(checked_name(name), float(weight))


def checked_new_name(name: str) -> str:
    """Return `name` if a new adapter or subject may have it; existing ones may have a reserved name.

    Raises:
        UsageError: as `checked_name`, or it is reserved.
    """
    return _not_reserved(checked_name(name), _RESERVED_NAMES)


def checked_tenant(tenant: str) -> str:
    """Return `tenant` if it can name one. Raises UsageError: as `checked_name`, or it is reserved."""
    return _not_reserved(checked_name(tenant), _RESERVED_TENANTS)


def _not_reserved(name: str, reserved: Mapping[str, str]) -> str:
    if name in reserved:
        raise UsageError(
            f"expected another name than {name}, which is reserved for {reserved[name]}", hint="choose another name"
        )
    return name


def checked_seed(seed: int) -> int:
    """Return `seed` if a generator takes it. Raises UsageError."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError("expected a seed from 0 to 2**63 - 1")
    return seed


def checked_rank(rank: int, most: int, *, or_else: str = "use a smaller rank") -> int:
    """Return the rank of an adapter, if this installation serves it.

    Args:
        or_else: for the hint: what to do without changing the installation.

    Raises:
        Mismatch: the rank is above `most`.
    """
    if rank > most:
        raise Mismatch(
            f"expected an adapter of rank {most} at most, got {rank}",
            hint=f"{or_else}; or set LIKENESS_RANK={rank} for the server, its workers and the commands",
            code="RankTooLarge",
        )
    return rank


def is_whole(text: str) -> bool:
    """Whether a text has only whole characters, without NUL, so that a database can keep it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def printable_name(path: str) -> str:
    """The last part of a path, 120 characters at most, without those that cannot be printed; never empty."""
    last = path.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or "unnamed"


@dataclass(frozen=True)
class Photo:
    """One photograph, as it came, or the clean copy that is kept of it."""

    name: str  # see `printable_name`; for messages only, never used as a path
    content: bytes = field(repr=False)
    received_sha256: str = ""  # of a clean copy only: the hash of what it was made of
    unread: Unread | None = None  # why `content` is not the whole file; None: it is complete

    @cached_property
    def sha256(self) -> str:
        """Hash of the received file, so that a repeated upload is recognised although only its clean copy is stored."""
        return self.received_sha256 or hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Subject:
    """The subject of a fine-tune: DreamBooth's '[identifier] [class noun]', or a style, which has no class noun."""

    name: str
    class_noun: str = "person"  # "": a style
    identifier: str = ""  # "": the default of its kind, <<TOK>> or <<STY>>

    def __post_init__(self) -> None:
        if not self.identifier:
            object.__setattr__(self, "identifier", STYLE_IDENTIFIER if self.kind == "style" else IDENTIFIER)

    @property
    def kind(self) -> Kind:
        return kind_of(self.class_noun)

    @property
    def is_person(self) -> bool:
        return self.kind == "person"

    @property
    def words(self) -> str:
        """The words of the subject in a prompt: '<<TOK>> man', of a style '<<STY>> style'."""
        return f"{self.identifier} {self.class_noun or 'style'}"

    @property
    def prior_noun(self) -> str:
        """The class noun of the class images. Those of a style show people, without the style."""
        return self.class_noun or Subject.class_noun

    def added_to(self, text: str) -> str:
        """A prompt with the words of a style: 'a man in the snow, in <<STY>> style'."""
        return f"{text}, in {self.words}" if text.strip() else f"picture in {self.words}"


IDENTIFIER, STYLE_IDENTIFIER = "<<TOK>>", "<<STY>>"  # different, so that one prompt can have both


def kind_of(class_noun: str) -> Kind:
    """The kind of a subject with this class noun; a style has none, the empty text."""
    if not class_noun:
        return "style"
    return "person" if means_person(class_noun) else "thing"


def class_noun_of(kind: str | None, class_noun: str | None) -> str:
    """The class noun of a new subject: as given, else 'person'; of a style the empty text.

    Args:
        kind: one of `KINDS`; None: the kind that the class noun means.

    Raises:
        UsageError: an unknown kind, or a class noun that does not mean a subject of this kind.
    """
    if kind not in (None, *KINDS):
        raise UsageError(f"expected a kind of {', '.join(KINDS)}", param="kind")
    if kind == "style":
        if class_noun is not None:
            raise UsageError("expected no class noun with the kind style", hint="a style has none", param="class_noun")
        return ""
    noun = Subject.class_noun if class_noun is None else class_noun
    if not noun.strip() or kind not in (None, kind_of(noun)):
        raise UsageError(
            f"expected a class noun that means {f'a {kind}' if kind else 'a person or a thing'}",
            hint="for example: woman, or dog for a thing",
            param="class_noun",
        )
    return noun


def means_person(class_noun: str) -> bool:
    """Whether a class noun is a word for people: 'Woman', 'old man', 'boy scout', but not 'baby elephant'.

    People need consent and a face on each photograph, so words for people count at any position.
    """
    words = re.findall(r"[a-z]+", class_noun.casefold())
    return bool(words) and (words[-1] in _PERSON_NOUNS or not _GENDERED_NOUNS.isdisjoint(words))


def checked_subject(subject: Subject) -> Subject:
    """Return `subject`, a new one, if prompts, files and cards can hold its words.

    Raises:
        UsageError: a name that cannot be given; a class noun or an identifier that is blank, unprintable or long.
    """
    checked_new_name(subject.name)
    for what, word in {"a class noun": subject.prior_noun, "an identifier": subject.identifier}.items():
        if not word.strip() or len(word) > _MAX_WORD or not word.isprintable():
            raise UsageError(f"expected {what} of 1 to {_MAX_WORD} printable characters")
    return subject


MAX_PHOTOS = 64  # of one subject; recipes were made for a dozen

_GENDERED_NOUNS = {"man", "woman", "boy", "girl", "men", "women", "boys", "girls"}
_PERSON_NOUNS = _GENDERED_NOUNS | {
    "person", "people", "human", "face", "adult", "male", "female", "lady", "gentleman", "guy", "gal", "dude", "bloke",
    "child", "children", "kid", "kids", "baby", "toddler", "infant", "newborn", "teen", "teenager", "senior",
    "mother", "mom", "mum", "mummy", "father", "dad", "daddy", "parent", "son", "daughter", "brother", "sister",
    "grandmother", "grandma", "granny", "grandfather", "grandpa", "husband", "wife", "bride", "groom", "boyfriend",
    "girlfriend", "uncle", "aunt", "cousin", "nephew", "niece", "grandson", "granddaughter", "friend",
}  # fmt: skip


PREPARED_PX = 512  # side of a prepared photograph; larger for bases of larger images


class Crop(NamedTuple):
    """Where a prepared photograph lies in its source, in the source's pixels; it may reach beyond the edges."""

    source_height: int
    source_width: int
    top: int
    left: int
    height: int
    width: int

    @property
    def mirrored(self) -> "Crop":
        """Of the mirror image."""
        return self._replace(left=self.source_width - self.left - self.width)


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """A photograph cropped for training, with the masks that the loss and the backgrounds need."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    matte: NDArray[np.uint8]  # (H, W) 255 = subject, 0 = background; all 255 where the subject was not found
    face: NDArray[np.uint8]  # (H, W) 255 = the face, soft-edged; all 0 for subjects without one
    # square: "portrait" (head and shoulders), "close" (the face fills the frame), "aligned", "whole";
    # in a bucket of another aspect: "tall" (a portrait with more of the body), "full" (nearly all of the picture)
    framing: str
    source_sha256: str  # of the photograph it came from
    crop: Crop | None = None  # None: turned, or not known
    glasses: bool | None = None  # whether the person wears some; None: it cannot be said


@dataclass(frozen=True, eq=False)
class LoraPair:
    """The two factors of one adapted layer: delta W = alpha / r * B A."""

    A: NDArray[np.floating]  # (r, d_in) linear, (r, C_in, k, k) convolution
    B: NDArray[np.floating]  # (d_out, r) linear, (C_out, r, 1, 1) convolution


@dataclass(frozen=True)
class AdapterCard:
    """The metadata of an adapter, which a server reads before it loads the weights. Stored beside them as card.json."""

    name: str
    class_noun: str  # "": of a style
    identifier: str
    base_id: str  # folder name or hub id
    base_sha256: str  # of all base weights, see diffusion.base
    family: str
    recipe: Mapping[str, object]  # every field of the FineTuneRecipe
    seed: int
    photos: int  # photographs that were trained on
    steps: int  # steps that were taken
    seconds: float  # training time
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]  # of likeness and torch
    rank: int
    alpha: float
    content_sha256: str = ""  # of the weights file(s); filled in when written
    serves: Mapping[str, float] = field(default_factory=dict)  # SHA-256 of each distilled base -> strength on it
    # relative Frobenius error of weights that were extracted at import: `error` of all, `largest_error` of a layer
    extraction: Mapping[str, float] = field(default_factory=dict)

    @property
    def subject(self) -> Subject:
        return Subject(self.name, self.class_noun, self.identifier)


@dataclass(frozen=True, eq=False)
class Adapter:
    """One person's weights: for each network, module name -> factors. Module names as in the diffusers network."""

    card: AdapterCard
    weights: Mapping[Network, Mapping[str, LoraPair]]


MAX_PROMPT_CHARACTERS = 2000
MAX_IMAGES = 64  # of one call


Size = tuple[int, int]  # width and height in pixels
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)


def size_of(text: str | None) -> Size | tuple[None, None]:
    """Width and height of `832x1216`; None and None, the base's own, for no text and for `auto`. Raises UsageError."""
    if text in (None, "", "auto"):
        return None, None
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise UsageError(
            f"expected a size as WIDTHxHEIGHT or auto, got another text of {len(str(text))} characters",
            hint="for example: 832x1216", param="size",
        )  # fmt: skip
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class ImageRequest:
    """One image to make. Its construction checks every value; what depends on the base is checked by the sampler.

    Raises:
        UsageError: names the field and its range and, for numbers, what was got.
    """

    prompt: str
    adapters: Blend = ()  # the first is the subject; empty = the bare base
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None  # None = the base's default, as for the sampler
    guidance_scale: float | None = None  # 1 = not guided; None = the base's default
    adapter_scale: float = 1.0  # multiplies the weight of each adapter
    negative_scale: float | None = None  # adapter scale for the negative prompt; None = the base's default
    sampler: str | None = None
    fast: bool = False  # the base's settings for few steps, in place of steps and sampler
    width: int | None = None  # pixels; both None = the base's own square
    height: int | None = None

    def __post_init__(self) -> None:
        checked_blend(self.adapters)
        if (self.width is None) != (self.height is None):
            missing = "width" if self.width is None else "height"
            raise UsageError(f"expected width and height together, got no {missing}", param="size")
        for param in ("steps", "sampler"):
            if self.fast and getattr(self, param) is not None:
                raise UsageError(f"expected no {param} for a fast image: the base determines it", param=param)
        ranges: dict[str, tuple[str, float, float | None, float]] = {
            "steps": ("steps", 1, self.steps, 200),
            "guidance_scale": ("guidance", 1, self.guidance_scale, 30),
            "seed": ("seed", 0, self.seed, MAX_SEED),
            "adapter_scale": ("scale", 0, self.adapter_scale, 2),
            "negative_scale": ("negative scale", 0, self.negative_scale, 2),
        }
        for param, (name, low, got, high) in ranges.items():
            if got is not None and not low <= got <= high:
                raise UsageError(f"expected {name} from {low} to {high}, got {got}", param=param)
        for name, text in {"prompt": self.prompt, "negative prompt": self.negative_prompt}.items():
            param = name.replace(" ", "_")
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise UsageError(
                    f"expected a {name} of at most {MAX_PROMPT_CHARACTERS} characters, got {len(text)}", param=param
                )
            if not is_whole(text):
                raise UsageError(f"expected a {name} of whole characters, without NUL", param=param)
        if self.sampler not in (None, *SAMPLER_NAMES):
            raise UsageError(f"expected a sampler of {', '.join(SAMPLER_NAMES)}", param="sampler")

    @property
    def subject(self) -> str | None:
        """The name of the first adapter; None: the bare base."""
        return self.adapters[0].name if self.adapters else None

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON types; the adapters as the text that `blend_of` reads."""
        document = {("adapter" if name == "adapters" else name): value for name, value in asdict(self).items()}
        return document | {"adapter": blend_text(self.adapters)}

    def numbered(self, count: int) -> "list[ImageRequest]":
        """`count` requests that differ in their seeds: seed, seed + 1, ... Raises UsageError: a count not in 1..64."""
        if not 1 <= count <= MAX_IMAGES:
            raise UsageError(f"expected 1 to {MAX_IMAGES} images, got {count}", param="n")
        return [replace(self, seed=self.seed + k) for k in range(count)]


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """A finished image and the facts that would make it again."""

    request: ImageRequest  # as it was made: the subject's words in the prompt, the base's defaults filled in
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    base_sha256: str
    adapter_sha256: str | None  # of the adapters, joined by +
    seconds: float


@dataclass(frozen=True)
class Advance:
    """Progress of a long operation within one stage."""

    stage: str  # 'check', 'prepare', 'load base', 'class images', 'encode', 'train', 'generate'
    done: int
    total: int
    loss: float | None = None  # of the last step
    images_per_s: float | None = None  # rows per second through the networks
    warning: str = ""  # a problem that did not stop the work
    left_s: float | None = None  # estimate for the rest of the stage
    together: int | None = None  # jobs in the same training loop

    def to_json(self) -> dict[str, Any]:
        """The form of a job's event stream; warnings are for terminals only."""
        return {key: value for key, value in asdict(self).items() if key != "warning"}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Advance":
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


Watch = Callable[[Advance], None]
ShouldStop = Callable[[], bool]


def unwatched(advance: Advance) -> None:
    """Ignores progress."""


def never() -> bool:
    """Never requests a stop."""
    return False


class Stopwatch:
    """Seconds per stage, in the order in which they ran; repeated stages are added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started_s
