"""/v1/backup: everything that a tenant keeps, as one zip, and restoring it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, File, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from .auth import Asking
from .generation import likeness_of
from .schemas import REFUSALS

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["operation"])


class LeftOutOut(BaseModel):
    name: str
    reason: str
    count: int


class RestoredOut(BaseModel):
    """The number of items that were restored. Items that existed already are not counted."""

    subjects: int
    photos: int
    adapters: int
    images: int
    jobs: int
    left_out: list[LeftOutOut] = Field(description="items that could not be restored, by name and reason")


@router.get("/backup", response_class=Response)
async def make_backup(request: Request, asking: Asking) -> StreamingResponse:
    """A zip of all subjects, photographs, adapters, kept images and jobs that are over, of the tenant.

    Jobs that wait or run, receipts and API keys are not in it. A zip that cannot be opened is incomplete: an error
    ended the response.
    """
    parts = likeness_of(request).backup(tenant=asking.tenant)
    name = f"likeness-{datetime.now(UTC):%Y-%m-%d}.zip"
    return StreamingResponse(
        _sent(parts), media_type="application/zip", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.post("/backup")
async def restore_backup(
    request: Request, asking: Asking, file: Annotated[UploadFile, File()], restore_deleted: bool = False
) -> RestoredOut:
    """Restore a backup of this or of another server.

    What exists already is not changed. Photographs are left out when the time for which photographs are kept is over.
    Names that were deleted here after the backup was made are left out unless the query has restore_deleted=true.
    `likeness restore` takes files that are too large for a request.
    """
    likeness = likeness_of(request)
    async with request.app.state.uploads:
        restored = await asyncio.to_thread(
            likeness.restore, file.file, tenant=asking.tenant, restores_deleted=restore_deleted
        )
    return RestoredOut(
        **asdict(restored.counts), left_out=[LeftOutOut.model_validate(asdict(one)) for one in restored.left_out]
    )


async def _sent(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The parts, each made in a thread."""
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        if part:
            yield part
