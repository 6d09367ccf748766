"""The rows of a backup, `backup.json`, as they are read from an untrusted file: ids, names and times in the forms that
this program writes, texts of limited length. Values that follow from the content of a member are not in them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..storage.consent import MOST_CHARACTERS

FORMAT: Literal["likeness-backup"] = "likeness-backup"
VERSION: Literal[1] = 1
MANIFEST = "backup.json"
_MOST_JSON = 20_000  # characters of a photograph's verdict, of an image's facts, of a job's order or score card

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00\Z")]
Text = Annotated[str, Field(pattern=r"^[^\0]*\Z")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z")]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # since 1970


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, regex_engine="python-re")


class SubjectRow(_Row):
    name: Name
    class_noun: Annotated[Text, Field(max_length=100)]
    identifier: Annotated[Text, Field(max_length=100)]
    consent: Annotated[Text, Field(max_length=MOST_CHARACTERS)]
    consented: Time
    created: Time


class PhotoRow(_Row):
    """Its member is `photo_member(subject, sha256)`."""

    subject: Name
    sha256: Sha256
    file: Annotated[Text, Field(max_length=200)]
    report: Annotated[Text, Field(max_length=_MOST_JSON)]
    created: Time


class AdapterRow(_Row):
    """Its member is `adapter_member(name)`."""

    name: Name


class ImageRow(_Row):
    """Its member is `image_member(id, media_type)`."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\Z")]
    subject: Name  # or `base`
    media_type: Literal["image/png", "image/jpeg"]
    created: Time
    facts: Annotated[Text, Field(max_length=_MOST_JSON)]
    is_favourite: bool


class JobRow(_Row):
    """A job that is over. The members of its previews are `preview_member(id, step)`."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{24}\Z")]
    name: Name
    state: Literal["succeeded", "failed", "cancelled", "expired"]
    order: Annotated[Text, Field(max_length=_MOST_JSON)]  # JSON, see `jobs.job.JobOrder`
    submitted_s: Seconds
    started_s: Seconds | None
    finished_s: Seconds
    attempt: Annotated[int, Field(ge=0, lt=1 << 31)]
    code: Annotated[Text, Field(max_length=64)] | None  # of the failure
    reason: Annotated[Text, Field(max_length=2000)] | None
    hint: Annotated[Text, Field(max_length=2000)] | None
    adapter_sha256: Sha256 | None
    losses: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=1000)]
    previews: Annotated[list[Annotated[int, Field(ge=0, lt=100_000)]], Field(max_length=1000)]
    score: Annotated[Text, Field(max_length=_MOST_JSON)] | None  # JSON, see `scoring.score_card.ScoreCard`


class Manifest(_Row):
    """The whole of `backup.json`."""

    format: Literal["likeness-backup"]
    version: Literal[1]
    likeness: Annotated[Text, Field(max_length=100)]
    created: Time
    subjects: list[SubjectRow]
    photos: list[PhotoRow]
    adapters: list[AdapterRow]
    images: list[ImageRow]
    jobs: list[JobRow] = Field(default_factory=list)  # backups of before version 0.2 have none


def photo_member(subject: str, sha256: str) -> str:
    return f"photos/{subject}/{sha256}.jpg"


def adapter_member(name: str) -> str:
    return f"adapters/{name}.safetensors"


def image_member(id: str, media_type: str) -> str:
    return f"images/{id}.{media_type.rpartition('/')[2]}"


def preview_member(job: str, step: int) -> str:
    return f"previews/{job}/{step:05d}.png"
