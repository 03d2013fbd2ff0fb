"""Digests: what somebody claims of a file's bytes, and what they really are.

Knows the algorithms and how people write their results down. Knows no files and no networks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from localllm.errors import UsageError

#: "git-sha1" is what git calls a file: the sha1 of "blob SIZE\0" and its bytes. The hub's word for
#: files that are not in LFS.
Algorithm: TypeAlias = Literal["sha256", "sha512", "sha1", "md5", "git-sha1"]

_BY_LENGTH: dict[int, Algorithm] = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)
# GNU coreutils: "HEX  name", "HEX *name", with a leading backslash where the name is escaped;
# with --tag, and on BSD: "SHA256 (name) = HEX"; OpenSSL: "SHA2-256(name)= HEX".
_GNU_LINE = re.compile(r"\\?([0-9a-fA-F]{32,128})[ \t]+\*?(\S.*)", re.ASCII)
_BSD_LINE = re.compile(r"([A-Za-z0-9-]{2,12}) ?\((.+)\) ?= ?([0-9a-fA-F]{32,128})", re.ASCII)
# A digest by any other name (SHA3-256, RMD160) has as many digits as one of ours.
_BY_NAME: dict[str, Algorithm] = {
    "MD5": "md5",
    "SHA1": "sha1",
    "SHA256": "sha256",
    "SHA2-256": "sha256",
    "SHA512": "sha512",
    "SHA2-512": "sha512",
}


@dataclass(frozen=True)
class Claim:
    """What somebody says the digest of a file is.

    Attributes:
        algorithm: how it was made.
        hex: lower-case hexadecimal digits.
        by: who says so, for a person: "huggingface.co", "--sha256", "SHA256SUMS of example.org".
        proves: "origin" where the word comes from the one who publishes the file, or from the
            person; "transfer" where it comes with the bytes, from a mirror or from the server that
            sends them: then it shows only that they arrived as they were sent.
    """

    algorithm: Algorithm
    hex: str
    by: str
    proves: Literal["origin", "transfer"] = "origin"


def make_claim(
    text: str,
    by: str,
    *,
    algorithm: Algorithm | None = None,
    proves: Literal["origin", "transfer"] = "origin",
) -> Claim:
    """A claim out of what a person typed: "9F86…", or "sha256:9f86…".

    Args:
        text: the digits.
        by: who says so.
        algorithm: what they must be; None tells it from their number.
        proves: see Claim.

    Raises:
        UsageError: these are no digits of such a digest.
    """
    digits = text.strip().lower()
    prefix, colon, rest = digits.partition(":")
    if colon:
        digits = rest
    found = _BY_LENGTH.get(len(digits)) if _HEX.fullmatch(digits) else None
    if found is None or algorithm not in (None, found) or (colon and prefix != found):
        length = next((n for n, name in _BY_LENGTH.items() if name == algorithm), 64)
        raise UsageError(
            f"{text!r} is no digest by {algorithm or 'sha256'}",
            f"it has {length} digits, 0-9 a-f",
        )
    return Claim(found, digits, by, proves)


def parse_checksums(text: str, file_name: str, by: str) -> tuple[Claim, ...]:
    """What a checksum file says of one file.

    A sample of GNU's form, of BSD's, and of a file that holds the digits alone:

        9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  model-Q4_K_M.gguf
        MD5 (model-Q4_K_M.gguf) = d41d8cd98f00b204e9800998ecf8427e
        d41d8cd98f00b204e9800998ecf8427e

    Digits alone are taken where they are all that the file holds. A line may name the file with
    more folders than we know of (`out/model.gguf`, on its maker's disk); lines that contradict
    each other then (`Q4/model.gguf`, `Q8/model.gguf`) are about several files, and say nothing.

    Args:
        text: of the checksum file, as untrusted as any.
        file_name: the file's path from the folder of the checksum file.
        by: who says so; what comes this way proves a transfer.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and _HEX.fullmatch(lines[0]) and len(lines[0]) in _BY_LENGTH:
        return (Claim(_BY_LENGTH[len(lines[0])], lines[0].lower(), by, "transfer"),)
    exact: set[tuple[Algorithm, str]] = set()
    deeper: set[tuple[Algorithm, str]] = set()
    for line in lines:
        if match := _GNU_LINE.fullmatch(line):
            digits, path = match[1], match[2]
            algorithm = _BY_LENGTH.get(len(digits))
        elif match := _BSD_LINE.fullmatch(line):
            path, digits = match[2], match[3]
            algorithm = _BY_NAME.get(match[1].upper())
        else:
            continue
        if algorithm is None or _BY_LENGTH.get(len(digits)) != algorithm:
            continue
        path = path.replace("\\", "/").removeprefix("./")
        if path == file_name:
            exact.add((algorithm, digits.lower()))
        elif path.endswith("/" + file_name):
            deeper.add((algorithm, digits.lower()))
    found = exact or deeper
    counts = Counter(algorithm for algorithm, _ in found)
    return tuple(
        Claim(algorithm, digits, by, "transfer")
        for algorithm, digits in sorted(found)
        if counts[algorithm] == 1
    )


class Digester:
    """Digests of one file, made piece by piece, several at once.

    Args:
        algorithms: which; sha256 is always among them.
        size_bytes: of the whole file, which git's digest begins with.
    """

    def __init__(self, algorithms: Iterable[Algorithm], size_bytes: int) -> None:
        self._hashes: dict[Algorithm, Any] = {}
        wanted: tuple[Algorithm, ...] = ("sha256", *algorithms)
        for name in dict.fromkeys(wanted):
            plain = "sha1" if name == "git-sha1" else name
            # usedforsecurity: md5 and sha1 are here because people publish them, and a machine
            # in FIPS mode would refuse them otherwise.
            self._hashes[name] = hashlib.new(plain, usedforsecurity=plain.startswith("sha2"))
        if "git-sha1" in self._hashes:
            self._hashes["git-sha1"].update(b"blob %d\0" % size_bytes)

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        for each in self._hashes.values():
            each.update(piece)

    def hexdigests(self) -> dict[Algorithm, str]:
        """The digests of all that was taken."""
        return {name: each.hexdigest() for name, each in self._hashes.items()}
