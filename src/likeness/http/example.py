"""/v1/example: the shipped photographs of a virtual person, for a first try without a camera."""

import asyncio

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from ..errors import NotFound
from ..service.example import CLASS_NOUN, example_photos
from ..types import JPEG
from .schemas import REFUSALS

router = APIRouter(prefix="/v1/example", responses=REFUSALS, tags=["photographs"])


class ExampleOut(BaseModel):
    """A virtual person."""

    class_noun: str
    photos: list[str] = Field(description="file names, of /v1/example/photos/{file}")


@router.get("")
async def example() -> ExampleOut:
    """The example person, who does not exist. Its photographs are uploaded like any others."""
    folder = await asyncio.to_thread(example_photos)
    return ExampleOut(class_noun=CLASS_NOUN, photos=sorted(path.name for path in folder.glob("*.jpg")))


@router.get("/photos/{file}", response_class=Response)
async def example_photo(file: str) -> Response:
    """One photograph of the example person."""
    folder = await asyncio.to_thread(example_photos)
    found = next((path for path in folder.glob("*.jpg") if path.name == file), None)
    if found is None:
        raise NotFound("there is no such photograph", hint="GET /v1/example lists them", code="ObjectNotFound")
    return Response(await asyncio.to_thread(found.read_bytes), media_type=JPEG)
