"""The only table from errors to HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping

from dockpy.errors import (
    Conflict,
    DockpyError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    NotServed,
    Unauthorized,
    Unavailable,
)

STATUS: Mapping[type[DockpyError], int] = {
    InvalidParameter: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    NotModified: 304,
    NotServed: 501,
    Unavailable: 503,
    DockpyError: 500,
}


def status_of(error: DockpyError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
