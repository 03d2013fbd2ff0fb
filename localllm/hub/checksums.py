"""Checksum files beside a model: where people put them, and what they say of a file.

Knows their names. How they are written is localllm/digests.py; what their word is worth is for
the claims to say.
"""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace

from localllm.digests import Claim, parse_checksums
from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError
from localllm.hub.address import Credentials, host_of
from localllm.hub.source import Listing, Source
from localllm.hub.web import Web, refusal
from localllm.units import MIB
from localllm.variants import RepoFile

#: Of a checksum file. A line takes 100 bytes, and no folder has ten thousand models.
_MAX_BYTES = MIB
# The strongest first: whoever needs only one asks no further.
_SUFFIXES = (".sha256", ".sha512", ".md5")
_LISTS = ("SHA256SUMS", "SHA512SUMS", "MD5SUMS")


def side_cars(
    web: Web, url: str, file_name: str, credentials: Credentials | None = None
) -> tuple[Claim, ...]:
    """What checksum files beside a URL say of its file, by asking for each name they may have.

    It stops at the first one that speaks of the file, and at a server that fails: a file nobody
    can speak for is unproven, and that is no error.

    Args:
        web: the way there.
        url: of the file; its query goes along.
        file_name: the last part of its path, decoded.
        credentials: for the URL's origin.
    """
    for place in _places(url):
        name = urllib.parse.unquote(posixpath.basename(urllib.parse.urlsplit(place).path))
        try:
            raw = _fetch(web, place, credentials)
        except (NotFoundError, AccessError):
            continue  # as most folders have none; some servers say 403 for what they lack
        except NetworkError:
            return ()
        if claims := read_side_car(raw, name, file_name, f"{name} of {host_of(url)}"):
            return claims
    return ()


def listed_side_cars(listing: Listing, file: RepoFile) -> tuple[RepoFile, ...]:
    """The checksum files in a listing that may speak of a file, the strongest first."""
    folder = posixpath.dirname(file.path)
    wanted = [file.path + suffix for suffix in _SUFFIXES]
    for name in _LISTS:
        wanted += [posixpath.join(folder, name), name]
    by_path = {each.path.lower(): each for each in listing.files if each.size_bytes <= _MAX_BYTES}
    found = (by_path.get(path.lower()) for path in wanted)
    return tuple(dict.fromkeys(each for each in found if each is not None))


def read_listed(source: Source, listing: Listing, file: RepoFile) -> tuple[Claim, ...]:
    """What all the checksum files in a repository say of one of its files.

    A side-car that cannot be had leaves the file unproven by it, which is no error.
    """
    claims: list[Claim] = []
    for side_car in listed_side_cars(listing, file):
        try:
            raw = source.remote(listing, side_car).read(0, side_car.size_bytes)
        except LocalllmError:
            continue
        folder, _, name = side_car.path.rpartition("/")
        path = file.path[len(folder) + 1 :] if folder else file.path
        by = f"{side_car.path} of {listing.authority}"
        claims += read_side_car(raw, name, path, by)
    if listing.is_origin:
        return tuple(replace(claim, proves="origin") for claim in claims)
    return tuple(claims)


def read_side_car(raw: bytes, name: str, file_name: str, by: str) -> tuple[Claim, ...]:
    """What a checksum file says of one file.

    Args:
        raw: its bytes, as untrusted as any.
        name: its own name; digits alone are an answer in `x.gguf.md5`, not in `MD5SUMS`.
        file_name: the file's path from the folder of the checksum file.
        by: who says so.
    """
    text = raw.decode("utf-8-sig", "replace")
    # Servers that know no 404 answer with a page.
    if len(raw) > _MAX_BYTES or text.lstrip().startswith("<"):
        return ()
    if len(text.split()) == 1 and not name.lower().endswith(_SUFFIXES):
        return ()
    return parse_checksums(text, file_name, by)


def _places(url: str) -> Iterator[str]:
    """The URLs at which checksum files may be, the strongest first."""
    parts = urllib.parse.urlsplit(url)
    folder = parts.path.rpartition("/")[0]
    for suffix, name in zip(_SUFFIXES, _LISTS, strict=True):
        for path in (parts.path + suffix, f"{folder}/{name}", f"{folder}/{name.lower()}"):
            yield urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))


def _fetch(web: Web, url: str, credentials: Credentials | None) -> bytes:
    """The start of a document. It is tried once: it need not exist.

    Raises:
        NotFoundError, AccessError, NetworkError: see `refusal` and `Web.request`.
    """
    with web.request("GET", url, credentials=credentials) as reply:
        if reply.status != 200:
            raise refusal(reply, "checksum file")
        pieces, n_bytes = [], 0
        while n_bytes <= _MAX_BYTES and (piece := reply.read(MIB)):
            pieces.append(piece)
            n_bytes += len(piece)
        return b"".join(pieces)
