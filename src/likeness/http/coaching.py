"""/v1/coach: a hint for one frame of a live camera. A frame that comes while another is examined is dropped."""

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, Field

from ..errors import UsageError
from .auth import Asking
from .schemas import REFUSALS

if TYPE_CHECKING:
    from ..photos import FaceDetector
    from ..photos.coach import Coaching

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["photographs"])

MOST_SIDE_PX = 2048
LATE = "late"


class CoachingOut(BaseModel):
    """What to change in front of the camera."""

    hint: str = Field(
        description="hold: take the photograph; late: the frame was dropped; or no_face, too_dark, too_bright, "
        "several_people, come_closer, go_back, centre, turn_left, turn_right, look_up, look_down, look_level, smile, "
        "neutral, open_mouth, hold_still"
    )
    box: tuple[float, float, float, float] | None = Field(
        default=None, description="left, top, right, bottom of the face as shares of the frame"
    )
    yaw_deg: float | None = Field(default=None, description="positive: turned to the right edge of the frame")
    pitch_deg: float | None = Field(default=None, description="positive: looks up")


class Coach:
    """Examines one frame at a time; `busy` is held meanwhile."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self._finder: FaceDetector | None = None

    def look(self, content: bytes, shot: str) -> "Coaching | None":
        """None: another frame is being examined. Raises UsageError: not a small JPEG."""
        from ..photos import MediaPipeFaces
        from ..photos.coach import coach

        if not self.busy.acquire(blocking=False):
            return None
        try:
            self._finder = self._finder or MediaPipeFaces()
            return coach(frame_of(content), shot, self._finder)
        finally:
            self.busy.release()


@router.post("/coach", openapi_extra={"requestBody": {"content": {"image/jpeg": {"schema": {
    "type": "string", "format": "binary"}}}}})  # fmt: skip
async def coach_frame(
    request: Request, asking: Asking,
    shot: Annotated[str, Query(max_length=40, description="of the plan of shots")] = "front",
) -> CoachingOut:  # fmt: skip
    """What to change in front of the camera. The body is a frame, not mirrored: a JPEG of at most 1 MB and 2048 px."""
    found = await asyncio.to_thread(request.app.state.coach.look, await request.body(), shot)
    if found is None:
        return CoachingOut(hint=LATE)
    return CoachingOut(hint=found.hint, box=found.box, yaw_deg=found.yaw_deg, pitch_deg=found.pitch_deg)


def frame_of(content: bytes) -> NDArray[np.uint8]:
    """A frame (H, W, 3) RGB. Raises UsageError: not a small JPEG."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            if max(picture.size) > MOST_SIDE_PX or min(picture.size) < 64:
                width, height = picture.size
                raise UsageError(f"expected a frame with sides of 64 to {MOST_SIDE_PX} px, got {width} x {height}")
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UsageError("expected a frame as a JPEG", hint="send the image itself as the body") from error
