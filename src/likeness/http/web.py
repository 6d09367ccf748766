"""The web app's files, as they are in the package: `/` and everything below `/web/`.

The app is plain ES modules and CSS, so nothing is built and nothing is rendered here. Its pages load only from this
server, which the Content-Security-Policy enforces. Source: W3C, 'Content Security Policy Level 3'.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Request, Response

from .failures import NoSuchRoute

PREFIX = "/web/"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'", "img-src 'self' blob:", "media-src 'self' blob:", "object-src 'none'", "base-uri 'none'",
        "form-action 'self'", "frame-ancestors 'none'",
    )
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # revalidated, with 304 as the answer: a new version is loaded at once
}
_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".jpg": "image/jpeg",
}  # fmt: skip

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class WebFile:
    """One file of the app."""

    content: bytes
    media_type: str
    etag: str


def is_page(path: str) -> bool:
    """Whether a path is a file of the app. These need no API key: they are the same for everybody."""
    return path == "/" or path.startswith(PREFIX)


@cache
def files() -> dict[str, WebFile]:
    """Path below `/web/` -> file, for all files that browsers load."""
    root = Path(str(resources.files("likeness"))) / "web"
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(root).as_posix()] = WebFile(content, _TYPES[path.suffix], etag)
    return found


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    """The one page of the app."""
    return _file(request, "index.html")


@router.head("/web/{path:path}")
@router.get("/web/{path:path}")
async def web_file(request: Request, path: str) -> Response:
    """A module, style sheet or picture of the app."""
    return _file(request, path)


def _file(request: Request, path: str) -> Response:
    found = files().get(path)
    if found is None:
        raise NoSuchRoute(404)
    headers = HEADERS | {"ETag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
