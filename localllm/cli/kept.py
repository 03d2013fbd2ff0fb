"""Models in the store by the names that a person types, and how they are told of."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from localllm.cli import finding, references, render
from localllm.errors import NotFoundError, UsageError
from localllm.hardware import Finding
from localllm.naming import ModelRef
from localllm.store import Manifest, Store, StoredFile

if TYPE_CHECKING:
    from rich.console import Console

#: Digits of a revision that are shown; git itself shows 7 to 12.
_N_DIGITS = 12
# NAME@REV: behind the quantization, where the reference's own place for it is before that.
_VERSION = re.compile(r"(?P<name>.+)@(?P<revision>[\w][\w.-]*)", re.ASCII)
#: Wider than any table.
UNBOUNDED_COLUMNS = 10_000
_SUFFIXES = (".gguf", ".llamafile")


def typed_name(manifest: Manifest) -> str:
    """What to type for it: "org/repo:Q4_K_M", a URL, the path of a llamafile."""
    if manifest.kind == "url":
        url = f"{manifest.repo}/{manifest.files[0].path}"
        return unquote(urlsplit(url).path) if url.startswith("file:") else url
    prefix = "ms:" if manifest.kind == "ms" else ""
    return f"{prefix}{manifest.repo}:{manifest.label}"


def typed_version(manifest: Manifest) -> str:
    """The name of this very version."""
    return f"{typed_name(manifest)}@{short(manifest.revision)}"


def short(revision: str) -> str:
    """The beginning of a revision, which is enough to name it."""
    return revision[:_N_DIGITS]


def reference(text: str) -> ModelRef:
    """A reference that may be NAME@REV as well, with its revision.

    Raises:
        UsageError, NotFoundError: see references.resolve.
    """
    match = _VERSION.fullmatch(text)
    if match is None or text.lower().endswith(_SUFFIXES):
        return references.resolve(text)
    return replace(references.resolve(match["name"]), revision=match["revision"])


def find_all(text: str) -> tuple[Manifest, ...]:
    """What a reference means of the store: a version of each model that it may be.

    The version in use, or the one that it names.

    Raises:
        NotFoundError: nothing. UsageError: no reference, or a revision that may be several.
    """
    current, revision = _find(text)
    if revision is None:
        return current
    versions = [each for model in current for each in Store.here().versions(model.name)]
    begin = [each for each in versions if each.revision.startswith(revision)]
    found = begin or [each for each in versions if each.asked == revision]
    if not found:
        raise NotFoundError(
            f"there is no version {revision} of {typed_name(current[0])} here",
            f"there is {', '.join(typed_version(each) for each in versions)}",
        )
    if len({each.name for each in found}) < len(found):
        raise UsageError(
            f"{revision!r} may be any of {len(found)} versions of {typed_name(found[0])}",
            f"name more of one: {', '.join(each.revision for each in found)}",
        )
    return tuple(found)


def find_one(text: str) -> Manifest:
    """The version that a reference means, of one model.

    Raises:
        NotFoundError: nothing. UsageError: several models, or versions.
    """
    return _only(find_all(text), text)


def find_name(text: str) -> tuple[Manifest, str | None]:
    """The version in use of the one model that a reference means, and the revision it names.

    Raises:
        NotFoundError: nothing. UsageError: several models.
    """
    current, revision = _find(text)
    return _only(current, text), revision


def _find(text: str) -> tuple[tuple[Manifest, ...], str | None]:
    parsed = reference(text)
    found = finding.find_kept(replace(parsed, revision=None))
    if not found:
        raise NotFoundError(
            f"there is no {references.shown(parsed)} in the store", "localllm list shows all"
        )
    return found, parsed.revision


def _only(found: tuple[Manifest, ...], text: str) -> Manifest:
    if len(found) > 1:
        raise UsageError(
            f"{references.shown(reference(text))} may be any of {len(found)} models here",
            f"name one of {', '.join(typed_name(each) for each in found)}",
        )
    return found[0]


def tell(findings: Iterable[Finding]) -> None:
    """Manifests that cannot be read, on standard error."""
    for damaged in findings:
        render.say(f"warning: {damaged.message} {damaged.fix}")


def table_console() -> Console:
    """Standard output, for tables: nothing is cut short where nobody sees columns."""
    out = render.console(sys.stdout)
    if not out.is_terminal:
        out.width = UNBOUNDED_COLUMNS
    return out


def file_document(file: StoredFile) -> dict[str, Any]:
    """What all JSON says of a version's file."""
    return {
        "name": file.path,
        "path": file.location,
        "size_bytes": file.size_bytes,
        "digests": dict(file.digests),
        "proofs": [vars(claim) for claim in file.proofs],
        "archive_proofs": [vars(claim) for claim in file.archive_proofs],
        "role": file.role,
        "adopted": file.adopted,
    }


def document(manifest: Manifest) -> dict[str, Any]:
    """What all JSON says of a version."""
    return {
        "ref": typed_name(manifest),
        "name": manifest.name,
        "source": manifest.kind,
        "repo": manifest.repo,
        "revision": manifest.revision,
        "asked": manifest.asked,
        "authority": manifest.authority,
        "label": manifest.label,
        "quant": manifest.quant,
        "size_bytes": manifest.size_bytes,
        "pulled_at": manifest.pulled_at,
        "verified": dict(manifest.verified),
    }
