"""What the gateway itself answers instead of llama-server, in llama-server's own form."""

from __future__ import annotations

import json
import math

#: llama-server's names for its errors (tools/server/server-common.cpp, format_error_response), and
#: for what it does not know, those of the OpenAI API.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class Refused(Exception):  # noqa: N818 (it is an answer, not a failure)
    """An answer without llama-server.

    Args:
        status: of HTTP.
        message: a sentence for the client.
        retry_after_seconds: when to come again, where that makes sense.
    """

    def __init__(self, status: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Beside the content type."""
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_seconds)))}

    def _error(self) -> dict[str, object]:
        kind = _TYPES.get(self.status, "server_error")
        return {"code": self.status, "message": self.message, "type": kind}

    @property
    def body(self) -> bytes:
        """Such as {"error":{"code":503,"message":"…","type":"unavailable_error"}}."""
        return json.dumps({"error": self._error()}, separators=(",", ":")).encode()

    def event(self, *, is_messages: bool) -> bytes:
        """The same as the last event of a stream that had begun."""
        if is_messages:
            return b"event: error\ndata: " + json.dumps(self._error()).encode() + b"\n\n"
        return b"data: " + self.body + b"\n\n"
