"""The JSON documents of /v1, requests and responses. Unknown fields of a request are refused."""

import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag

from ..storage.consent import MOST_CHARACTERS
from ..types import (
    MAX_BLEND,
    MAX_IMAGES,
    MAX_PROMPT_CHARACTERS,
    Blend,
    ImageRequest,
    Kind,
    Verdict,
    WeightedAdapter,
    blend_of,
    checked_blend,
)
from .asked import WHOLE, Asked, Integer

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", examples=["anna"])]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
RANDOM_SEEDS = 2**32  # short enough to be read out and typed
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _possible(id: str) -> str:
    """The id, or an empty one, which does not exist: text that cannot be an id is answered as an unknown id.

    It is not passed to a database: PostgreSQL raises an error for NUL.
    """
    return id if _ID.fullmatch(id) else ""


Id = Annotated[str, AfterValidator(_possible)]


class NewSubject(Asked):
    """The subject of an adapter."""

    name: Name
    class_noun: Annotated[str | None, Field(max_length=100, examples=["woman"])] = Field(
        default=None, description="`person` by default; a style has none"
    )
    kind: Kind | None = Field(default=None, description="`style`; person or thing follow from the class noun")
    consent: Annotated[str, Field(max_length=MOST_CHARACTERS, examples=["Anna agreed in writing on 2026-03-01"])] = (
        Field(
            default="",
            description="who agreed, and when; needed for people, and for pictures of a style that show faces",
        )
    )


class SubjectOut(BaseModel):
    name: str
    kind: Kind
    class_noun: str = Field(description="empty for a style")
    identifier: str
    consent: str
    consented: str
    created: str
    photos: int | None = Field(default=None, description="photographs that are kept; only of a single subject")
    has_adapter: bool | None = None


class SubjectsOut(BaseModel):
    subjects: list[SubjectOut]
    next: str | None = Field(description="`after` of the next page; null at the end")


class ReasonOut(BaseModel):
    code: str
    verdict: Verdict
    message: str
    hint: str


class PhotoOut(BaseModel):
    """A verdict on one photograph. Refused ones are not kept."""

    sha256: str = Field(description="of the file that was sent; its name from now on")
    file: str
    verdict: Verdict
    reasons: list[ReasonOut]
    hint: str
    shows: list[str] = Field(default_factory=list, description="the shots of the plan that it fills")


class ShotOut(BaseModel):
    """A line of the plan of shots."""

    shot: str = Field(examples=["three_quarter_left"])
    wanted: int
    have: int


class SetOut(BaseModel):
    """Findings about all photographs of the subject together."""

    count: int
    coverage: dict[str, dict[str, int]]
    advice: list[ReasonOut]
    plan: list[ShotOut] = Field(description="what a good set of a person has; the largest gain first")
    next_shot: str | None = Field(description="what one more photograph would improve most")


class CheckedOut(BaseModel):
    photos: list[PhotoOut]
    set: SetOut


class PhotosOut(BaseModel):
    photos: list[PhotoOut]


class AdapterOut(BaseModel):
    name: str
    kind: Kind
    class_noun: str = Field(description="empty for a style")
    identifier: str
    base_id: str
    base_sha256: str
    recipe: dict[str, Any]
    seed: int
    photos: int
    steps: int
    seconds: float
    created: str
    rank: int
    alpha: float
    content_sha256: str
    extraction: dict[str, float] = Field(
        description="relative error of weights that were extracted at import: `error`, `largest_error` of a layer"
    )
    bytes: int
    is_house: bool = Field(default=False, description="whether it is a house adapter, which all tenants can use")


class AdaptersOut(BaseModel):
    adapters: list[AdapterOut]
    next: str | None = Field(description="`after` of the next page; null at the end")


class ForgottenOut(BaseModel):
    kind: str
    count: int
    bytes: int


class ReceiptOut(BaseModel):
    """What was deleted, and when."""

    name: str
    items: list[ForgottenOut]
    at: str


class UnfinishedOut(BaseModel):
    """A deletion that is recorded and not complete yet. It continues in the background."""

    name: str
    begun: str
    reason: str = Field(default="", description="what it waits for")


class ReceiptsOut(BaseModel):
    receipts: list[ReceiptOut]
    unfinished: list[UnfinishedOut]


class WeightedIn(Asked):
    """One of several adapters of an image."""

    name: Name
    weight: float = Field(default=1.0, description="0 to 2")


def _form(value: object) -> str:
    return "[list]" if isinstance(value, list) else "[name]"


AdapterIn = Annotated[  # the tags select the error that is shown, see `invalid`
    Annotated[Name, Tag("[name]")]
    | Annotated[list[WeightedIn], Field(min_length=1, max_length=MAX_BLEND), Tag("[list]")],
    Discriminator(_form),
]


class NewImages(Asked):
    """Images to make. Ranges are those of the command line."""

    prompt: Prompt = Field(examples=["oil painting of {me} in a garden"], description="{me} stands for the subject")
    adapter: AdapterIn | None = Field(
        default=None,
        description="a name, or up to four of {name, weight}, the subject first, weights 0 to 2; none, or `base`: "
        "the bare base",
    )
    negative_prompt: Prompt = ""
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES), WHOLE] = Field(default=1, description="seeds count up")
    seed: Integer | None = Field(default=None, description="random by default")
    steps: Integer | None = Field(default=None, description="1 to 200; the base's own by default")
    guidance_scale: float | None = Field(default=None, description="1 (not guided) to 30; the base's own by default")
    adapter_scale: float = Field(default=1.0, description="0 to 2")
    negative_scale: float | None = Field(
        default=None, description="0 to 2: adapter scale for the negative prompt; the base's own by default"
    )
    sampler: Annotated[str | None, Field(max_length=40, examples=["dpmpp_2m"])] = None
    width: Integer | None = Field(
        default=None, description="pixels, with height; the base's own by default, see /v1/base"
    )
    height: Integer | None = None
    fast: bool = Field(
        default=False,
        description="fewer steps than by default: softer images, sooner; without steps and sampler, built-in base only",
    )
    format: Literal["png", "jpeg"] = "png"
    keep: bool = Field(default=False, description="keep the images here; GET /v1/images/{id} returns them")

    def request(self) -> ImageRequest:
        """The first of the images. Raises UsageError: a value out of its range."""
        seed = secrets.randbelow(RANDOM_SEEDS) if self.seed is None else self.seed
        return ImageRequest(
            self.prompt, self._blend(), self.negative_prompt, seed, self.steps, self.guidance_scale,
            self.adapter_scale, self.negative_scale, self.sampler, self.fast, self.width, self.height,
        )  # fmt: skip

    def _blend(self) -> Blend:
        if isinstance(self.adapter, list):
            return checked_blend(WeightedAdapter(one.name, one.weight) for one in self.adapter)
        return blend_of(self.adapter)


class ImageOut(BaseModel):
    """One image, and everything that is needed to make it again."""

    id: str | None = Field(description="id under which it was kept; null if it was not")
    data: str = Field(description="base64")
    media_type: str
    width: int
    height: int
    seed: int
    prompt: str = Field(description="with the subject's words")
    unread: str = Field(description="the end of the prompt that the base cut off; usually empty")
    unread_negative: str = Field(description="likewise of the negative prompt; all of it if guidance_scale is 1")
    unread_instructions: list[str] = Field(
        description="weights and tags such as (word:1.2), which are read as plain words"
    )
    base_sha256: str
    adapter_sha256: str | None = Field(description="of several adapters: joined by +")
    seconds: float


class ImagesOut(BaseModel):
    images: list[ImageOut]


class SizesOut(BaseModel):
    """What the width and the height of an image may be, besides those of the base's square."""

    step_px: int = Field(description="both are multiples of it")
    least_area_px: int
    most_area_px: int
    most_aspect: float = Field(description="the longer side by the shorter")


class ShapeOut(BaseModel):
    """A size to offer."""

    aspect: str = Field(description="width to height, about", examples=["3:4"])
    width: int
    height: int


class BaseOut(BaseModel):
    """The base model that all adapters here belong to."""

    id: str
    sha256: str
    family: str
    width_px: int
    height_px: int
    sizes: SizesOut | None = Field(description="null: the square only")
    shapes: list[ShapeOut] = Field(
        description="sizes to offer: the square, others of about its area, and, where they fit into the memory, larger "
        "ones for which the base was made"
    )
    guidance_scale: float


class ErrorOut(BaseModel):
    code: str = Field(examples=["AdapterNotFound"])
    message: str = Field(examples=["there is no adapter of this name"])
    hint: str = Field(examples=["did you mean anna?"])


class RefusalOut(BaseModel):
    """Every response that is not a success."""

    error: ErrorOut


# `responses` of every router of /v1, for the OpenAPI page
REFUSALS: dict[int | str, dict[str, Any]] = {"4XX": {"model": RefusalOut}, "5XX": {"model": RefusalOut}}
