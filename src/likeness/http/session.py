"""/v1/session: signing in and out of the web app; /v1/about: properties of this installation for a client."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from .. import __version__
from ..service import Likeness
from ..storage.catalog import LOCAL
from ..storage.sessions import COOKIE, LIFE_S, begin_session, end_session
from ..training.recipe import PRESETS, preset
from ..types import MAX_PHOTOS
from .asked import Asked
from .auth import Access, Asking, Caller, refuse_other_pages, session_token
from .generation import likeness_of
from .schemas import REFUSALS

router = APIRouter(prefix="/v1", responses=REFUSALS, tags=["operation"])


class NewSession(Asked):
    key: Annotated[str, Field(max_length=200, description="an API key")]


class SessionOut(BaseModel):
    tenant: str
    is_operator: bool = Field(description="whether the key may see all tenants, at /v1/operator")


class RecipeOut(BaseModel):
    name: str
    steps: int


class AboutOut(BaseModel):
    """This installation, as the caller sees it."""

    version: str
    tenant: str
    is_operator: bool
    needs_keys: bool
    has_session: bool
    base: str
    side_px: int
    guidance_scale: float = Field(description="the base's own")
    keep_photos_days: int = Field(description="how long photographs are kept after training")
    upload_mb: int = Field(description="largest request, in MB")
    most_photos: int
    recipes: list[RecipeOut]


@router.post("/session", status_code=201)
async def sign_in(request: Request, response: Response, new: NewSession) -> SessionOut:
    """Sign in with an API key. The cookie of the response is accepted in place of the key, from this origin only."""
    refuse_other_pages(request.headers, request.method)
    token, key = await asyncio.to_thread(begin_session, likeness_of(request).catalog, new.key)
    response.set_cookie(
        COOKIE, token, max_age=LIFE_S, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return SessionOut(tenant=key.tenant, is_operator=key.tenant == LOCAL)


@router.delete("/session", status_code=204)
async def sign_out(request: Request, response: Response, asking: Asking) -> None:
    """End the session of the request's cookie."""
    token, access = session_token(request.headers), request.app.state.access
    await asyncio.to_thread(_end, likeness_of(request), access, token)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


@router.get("/about")
async def about(request: Request, asking: Asking) -> AboutOut:
    """Version, base, limits, recipes, and the tenant of the request."""
    likeness, needs_keys = likeness_of(request), request.app.state.needs_keys
    return await asyncio.to_thread(
        _about, likeness, asking, needs_keys=needs_keys, has_session=bool(session_token(request.headers))
    )


def _end(likeness: Likeness, access: Access, token: str) -> None:
    end_session(likeness.catalog, token)
    access.forget_session(token)


def _about(likeness: Likeness, caller: Caller, *, needs_keys: bool, has_session: bool) -> AboutOut:
    base, settings = likeness.base, likeness.settings
    return AboutOut(
        version=__version__, tenant=caller.tenant, is_operator=caller.tenant == LOCAL, needs_keys=needs_keys,
        has_session=has_session, base=base.id, side_px=base.family.resolution_px,
        guidance_scale=base.family.guidance_scale, keep_photos_days=settings.keep_photos_days,
        upload_mb=settings.upload_mb, most_photos=MAX_PHOTOS,
        recipes=[RecipeOut(name=name, steps=preset(name, base.family.name).steps) for name in PRESETS],
    )  # fmt: skip
