"""The manifest: what is known of one version of a model on this disk, and how it is written down.

Knows its fields and its JSON. Knows nothing of where manifests are kept (library.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from localllm.digests import Algorithm, Claim
from localllm.errors import IntegrityError, UsageError
from localllm.naming import check_repo_path
from localllm.store.layout import Kind, Repo, check_revision

SCHEMA_VERSION = 1

Role: TypeAlias = Literal["model", "mmproj", "draft"]
CheckName: TypeAlias = Literal["integrity", "structure", "quantization", "inference"]

_HEX = re.compile(r"[0-9a-f]{32,128}", re.ASCII)
_ROLES: tuple[Role, ...] = get_args(Role)
_KINDS: tuple[Kind, ...] = get_args(Kind)
_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_CHECKS: tuple[CheckName, ...] = get_args(CheckName)
_PROVES: tuple[Literal["origin", "transfer"], ...] = ("origin", "transfer")


class DamagedError(Exception):
    """This is no manifest that can be read; says why, in a clause."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a model on this disk.

    Attributes:
        path: in its repository, with forward slashes.
        location: where it is read from: its place in the snapshot, absolute.
        size_bytes: of it.
        mtime_ns: when its bytes were last written, as they were proven.
        digests: of its bytes, as they were computed here; sha256 is among them.
        proofs: what somebody else says of them; they agreed.
        archive_proofs: likewise, of the llamafile that it was taken out of.
        role: what it is to the model.
        adopted: the program whose file it was before ours; None where we downloaded it.
        in_place: it stood at its location before us, and stays there when the model goes.
    """

    path: str
    location: str
    size_bytes: int
    mtime_ns: int
    digests: Mapping[Algorithm, str]
    proofs: tuple[Claim, ...] = ()
    archive_proofs: tuple[Claim, ...] = ()
    role: Role = "model"
    adopted: str | None = None
    in_place: bool = False

    def has(self, algorithm: Algorithm, digest: str) -> bool:
        """Whether the file, or the llamafile it came in, was proven to have this digest."""
        of_archive = {(claim.algorithm, claim.hex) for claim in self.archive_proofs}
        return self.digests.get(algorithm) == digest or (algorithm, digest) in of_archive


@dataclass(frozen=True)
class Facts:
    """What a listing says of a model, as its header tells.

    Attributes:
        name: general.name, or the file's stem.
        architecture: general.architecture.
        n_layers: repeating layers.
        n_ctx_train: the context it was trained for, tokens.
        is_generative: it can write text.
    """

    name: str
    architecture: str | None = None
    n_layers: int | None = None
    n_ctx_train: int | None = None
    is_generative: bool = True


@dataclass(frozen=True)
class Manifest:
    """One version of a model on this disk.

    Attributes:
        kind: what sort of source it came from.
        repo: "org/repo"; for a URL its folder, without query and user.
        revision: the commit; for a URL a digest of what its server said.
        asked: the revision that was asked for: "main".
        authority: the host whose word sizes and digests are.
        label: of the variant, as it is called in its repository: "Q4_K_M".
        quant: canonical; None where the names do not say.
        files: model files in shard order, then projectors and drafts.
        model: what the header tells.
        header_sha256: of the first file's header (checks.header_sha256).
        chat_template_sha256: of its chat template; None where it has none.
        pulled_at: when it was taken in, ISO 8601 in UTC: "2026-11-20T12:00:00Z".
        verified: check -> when it was last passed, likewise.
    """

    kind: Kind
    repo: str
    revision: str
    asked: str
    authority: str
    label: str
    quant: str | None
    files: tuple[StoredFile, ...]
    model: Facts
    header_sha256: str
    chat_template_sha256: str | None
    pulled_at: str
    verified: Mapping[CheckName, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its versions have in common: "hf:org/repo:Q4_K_M"."""
        return f"{self.kind}:{self.repo}:{self.label}"

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)


def to_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is kept."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(manifest)}, indent=1).encode()


def from_bytes(raw: bytes) -> Manifest:
    """The manifest out of what was kept: complete, and with no name in it that is a trap.

    Raises:
        DamagedError: it is not.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise DamagedError("it is not a complete JSON document") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise DamagedError("it has no schema_version")
    if version > SCHEMA_VERSION:
        raise DamagedError("it was written by a newer localllm")
    try:
        return _manifest(document)
    except KeyError as exc:
        raise DamagedError(f"it has no {exc.args[0]!r}") from None
    except (ValueError, IntegrityError, UsageError) as exc:
        raise DamagedError(str(exc)) from None


def _manifest(entry: Mapping[str, Any]) -> Manifest:
    model = _typed(entry["model"], dict)
    kind, repo = _one_of(entry["kind"], _KINDS), _typed(entry["repo"], str)
    Repo.of(Path(), kind, repo)  # which refuses what is no name
    return Manifest(
        kind=kind,
        repo=repo,
        revision=check_revision(_typed(entry["revision"], str)),
        asked=_typed(entry["asked"], str),
        authority=_typed(entry["authority"], str),
        label=_typed(entry["label"], str),
        quant=_maybe(entry["quant"], str),
        files=tuple(_file(_typed(file, dict)) for file in _typed(entry["files"], list)),
        model=Facts(
            name=_typed(model["name"], str),
            architecture=_maybe(model["architecture"], str),
            n_layers=_maybe(model["n_layers"], int),
            n_ctx_train=_maybe(model["n_ctx_train"], int),
            is_generative=_typed(model["is_generative"], bool),
        ),
        header_sha256=_hex(entry["header_sha256"]),
        chat_template_sha256=(
            None if entry["chat_template_sha256"] is None else _hex(entry["chat_template_sha256"])
        ),
        pulled_at=_typed(entry["pulled_at"], str),
        verified=_mapping(entry["verified"], _CHECKS, lambda when: _typed(when, str)),
    )


def _file(entry: Mapping[str, Any]) -> StoredFile:
    path, location = _typed(entry["path"], str), _typed(entry["location"], str)
    check_repo_path(path)
    if not os.path.isabs(location) or "\0" in location:
        raise ValueError(f"{location!r} is no absolute path")
    digests = _mapping(entry["digests"], _ALGORITHMS, _hex)
    if "sha256" not in digests:
        raise ValueError(f"it has no sha256 of {path}")
    return StoredFile(
        path=path,
        location=location,
        size_bytes=_typed(entry["size_bytes"], int),
        mtime_ns=_typed(entry["mtime_ns"], int),
        digests=digests,
        proofs=_claims(entry["proofs"]),
        archive_proofs=_claims(entry["archive_proofs"]),
        role=_one_of(entry["role"], _ROLES),
        adopted=_maybe(entry["adopted"], str),
        in_place=_typed(entry["in_place"], bool),
    )


def _claims(entries: Any) -> tuple[Claim, ...]:
    return tuple(_claim(_typed(claim, dict)) for claim in _typed(entries, list))


def _claim(entry: Mapping[str, Any]) -> Claim:
    return Claim(
        algorithm=_one_of(entry["algorithm"], _ALGORITHMS),
        hex=_hex(entry["hex"]),
        by=_typed(entry["by"], str),
        proves=_one_of(entry["proves"], _PROVES),
    )


T = TypeVar("T")
V = TypeVar("V")


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:  # isinstance would take true for a number
        raise ValueError(f"{str(value)[:50]!r} is not of the type {kind.__name__}")
    return value


def _maybe(value: Any, kind: type[T]) -> T | None:
    return None if value is None else _typed(value, kind)


def _one_of(value: Any, choices: tuple[T, ...]) -> T:
    if value not in choices:
        raise ValueError(f"{str(value)[:50]!r} is none of {', '.join(map(str, choices))}")
    return choices[choices.index(value)]


def _hex(value: Any) -> str:
    if not _HEX.fullmatch(_typed(value, str)):
        raise ValueError(f"{value[:50]!r} is no digest")
    return str(value)


def _mapping(value: Any, keys: tuple[T, ...], read: Callable[[Any], V]) -> dict[T, V]:
    return {_one_of(key, keys): read(item) for key, item in _typed(value, dict).items()}
