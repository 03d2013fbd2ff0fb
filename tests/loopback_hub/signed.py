"""Signed URLs, as a hub hands them out and its CDN checks them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode


@dataclass
class Signer:
    """Makes and checks signatures.

    Attributes:
        lifetime_seconds: how long a URL is good for; Hugging Face's are for an hour.
    """

    lifetime_seconds: float = 3600.0
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def query(self, path: str, file_name: str) -> str:
        """The query of a signed URL for an encoded path."""
        expires = str(int(time.time() + self.lifetime_seconds))
        name = f"inline; filename*=UTF-8''{quote(file_name)}; filename=\"{file_name}\";"
        parts = {
            "response-content-disposition": name,
            "Expires": expires,
            "Signature": self._signature(path, expires),
            "Key-Pair-Id": "LOOPBACK",
        }
        return urlencode(parts)

    def refusal(self, path: str, query: Mapping[str, str]) -> str | None:
        """Why a URL is not good, or None."""
        expires = query.get("Expires", "")
        if not expires.isdigit() or int(expires) < time.time():
            return "Request has expired"
        if not hmac.compare_digest(self._signature(path, expires), query.get("Signature", "")):
            return "The signature is not valid"
        return None

    def expire_all(self) -> None:
        """Makes every URL so far worthless, whatever the time is."""
        self._key = secrets.token_bytes(32)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()
