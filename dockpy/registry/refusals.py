"""What a registry server answers when it will not: the specification's error codes, each with its status.

A `Refusal` is raised anywhere below the server and becomes a body `{"errors": [{code, message, detail}]}`
(distribution-spec 1.1, "Error codes"). TOOMANYREQUESTS, UNKNOWN and PAGINATION_NUMBER_INVALID are docker's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

STATUS: Mapping[str, int] = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


class Refusal(Exception):
    """One error of the specification; `headers` go with it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        detail: object = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS[code]
        self.detail = detail
        self.headers = tuple(headers)

    def body(self) -> bytes:
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.detail is not None:
            error["detail"] = self.detail
        return json.dumps({"errors": [error]}, separators=(",", ":")).encode() + b"\n"
