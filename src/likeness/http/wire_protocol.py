"""A protocol that the application serves beside its own: what `create_app` takes from the composition root."""

from dataclasses import dataclass

from fastapi import APIRouter

from .failures import Shape


@dataclass(frozen=True)
class WireProtocol:
    """Routes below a path prefix of their own.

    Args:
        prefix: of its paths, with both slashes.
        failure: the shape of its errors.
        body_bytes: the most that a request's body may have.
    """

    prefix: str
    routers: tuple[APIRouter, ...]
    failure: Shape
    body_bytes: int
