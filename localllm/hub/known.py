"""Models that were looked at before: their outlines, kept so that planning again needs no network.

One file for each repository, in the cache: what an index says of its files, and their outlines,
compressed as one (they are nearly alike). Knows nothing of where a repository is or of what its
outlines mean; what it cannot read is as good as never seen, and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from localllm import paths
from localllm.errors import DiskError
from localllm.gguf import MemorySource
from localllm.hub.source import Listing
from localllm.plan import Model
from localllm.units import MIB
from localllm.variants import RepoFile

_T = TypeVar("_T")

#: Raised when the layout changes, or what an outline is made of (localllm/outline.py).
_SCHEMA_VERSION = 2
#: Of all entries together; the least recently used go first. An entry of twelve quantizations takes
#: 18 KB (219 tensors each) to 89 KB (1,137), so there is room for a thousand repositories.
_MAX_BYTES = 64 * MIB
#: Of one entry, unpacked: a hundred of the largest outlines known.
_MAX_UNPACKED_BYTES = 64 * MIB


@dataclass(frozen=True)
class KnownModel:
    """One model of a repository: a file, or a split set.

    Attributes:
        model: what the headers told.
        outlines: of its headers, one for each part, to plan from.
    """

    model: Model
    outlines: tuple[MemorySource, ...]


@dataclass(frozen=True)
class Known:
    """A repository as it was seen.

    Attributes:
        key: what it was remembered under.
        listing: what it held; None for files on this disk.
        models: those whose headers were read.
        when: that was, seconds since 1970.
    """

    key: str
    listing: Listing | None
    models: tuple[KnownModel, ...]
    when: float


def remember(ref_key: str, listing: Listing | None, models: Sequence[KnownModel]) -> None:
    """Keeps what was seen of a repository in place of what was known of it.

    What is too large to be kept at all (_MAX_UNPACKED_BYTES) is not, and what was known goes.

    Args:
        ref_key: names the repository, its revision as asked for included: "hf:org/repo@main".
        listing: what it holds.
        models: those whose headers were read.

    Raises:
        DiskError: it cannot be written. Nothing but a later look-up is lost by that.
    """
    folder = _folder()
    path = folder / _file_name(ref_key)
    raw = _packed(Known(ref_key, listing, tuple(models), time.time()))
    try:
        if raw is None:
            path.unlink(missing_ok=True)
            return
        _write(path, raw)
        _make_room(folder, newest=path)
    except OSError as exc:
        raise DiskError(
            f"cannot remember {ref_key} in {folder}: {exc.strerror}",
            "free some space, or set LOCALLLM_HOME to a folder that you may write to",
        ) from exc


def recall(ref_key: str) -> Known | None:
    """What is known under this key, or None; what is damaged or of another layout is removed."""
    path = _folder() / _file_name(ref_key)
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    known = _unpacked(raw)
    if known is None or known.key != ref_key:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was of use just now
    return known


def _folder() -> Path:
    return paths.private_folder(paths.cache_dir() / "outlines")


def _file_name(ref_key: str) -> str:
    # A key holds slashes, and may differ from another by case alone.
    return hashlib.sha256(ref_key.encode("utf-8", "surrogatepass")).hexdigest()


def _write(path: Path, raw: bytes) -> None:
    """All or nothing, whoever else writes the same."""
    descriptor, part = tempfile.mkstemp(dir=path.parent)  # readable by its owner alone
    try:
        with open(descriptor, "wb") as file:
            file.write(raw)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _make_room(folder: Path, newest: Path) -> None:
    """Removes what was used least recently, parts that a killed writer left included."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            status = path.stat()
            entries.append((status.st_mtime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in entries) - _MAX_BYTES
    for _, size, path in sorted(entries):
        if excess <= 0:
            break
        if path != newest:
            path.unlink(missing_ok=True)
            excess -= size


def _packed(known: Known) -> bytes | None:
    """The index, a line of JSON, and the outlines behind it; None where that is too much."""
    index = {
        "schema_version": _SCHEMA_VERSION,
        "key": known.key,
        "listing": None if known.listing is None else asdict(known.listing),
        "when": known.when,
        "models": [
            {
                "model": asdict(each.model),
                "outlines": [
                    {
                        "name": source.name,
                        "file_bytes": source.file_bytes,
                        "n_bytes": len(source.data),
                    }
                    for source in each.outlines
                ],
            }
            for each in known.models
        ],
    }
    pieces = [json.dumps(index).encode(), b"\n"]
    pieces += [source.data for each in known.models for source in each.outlines]
    if sum(map(len, pieces)) > _MAX_UNPACKED_BYTES:
        return None
    return zlib.compress(b"".join(pieces))


def _unpacked(raw: bytes) -> Known | None:
    """The entry; None where this is none, or one of another version."""
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(raw, _MAX_UNPACKED_BYTES)
        if not unpacker.eof:  # cut short, or more than was ever written: its sum is not checked
            return None
        line, _, data = plain.partition(b"\n")
        index = json.loads(line)
        if index["schema_version"] != _SCHEMA_VERSION:
            return None
        models, at = [], 0
        for entry in index["models"]:
            outlines = []
            for part in entry["outlines"]:
                end = at + part["n_bytes"]
                outlines.append(MemorySource(data[at:end], part["name"], part["file_bytes"]))
                at = end
            model = _rebuilt(Model, entry["model"])
            models.append(KnownModel(model, tuple(outlines)))
        if at != len(data):
            return None
        listing = None if index["listing"] is None else _rebuilt(Listing, index["listing"])
        return Known(index["key"], listing, tuple(models), index["when"])
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _rebuilt(kind: Callable[..., _T], told: Mapping[str, Any]) -> _T:
    """A Model or a Listing out of its fields.

    Raises:
        ValueError: it has other fields than those have today.
    """
    if told.keys() != {field.name for field in fields(cast(Any, kind))}:
        raise ValueError("of another version")
    files = tuple(RepoFile(**file) for file in told["files"])
    return kind(**{**told, "files": files})
