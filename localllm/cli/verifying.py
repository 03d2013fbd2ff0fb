"""`localllm verify`: the four checks before a model is trusted, told and noted."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm import demo
from localllm.cli import finding, kept, prepare, references, render
from localllm.cli.found import FoundModels
from localllm.cli.progress import Bars
from localllm.digests import Claim
from localllm.errors import (
    DoesNotFitError,
    EngineMissingError,
    IntegrityError,
    LocalllmError,
    UsageError,
)
from localllm.gguf import shard_paths
from localllm.hub import checksums, localfile
from localllm.hub.source import Listing
from localllm.pull import Step
from localllm.store import (
    Check,
    CheckName,
    Manifest,
    Store,
    StoredFile,
    check_integrity,
    check_quantization,
    check_structure,
    hash_file,
)
from localllm.variants import RepoFile

_MARKS = {"passed": ("ok  ", "green"), "failed": ("FAIL", "red"), "not tried": ("--  ", "dim")}


@dataclass(frozen=True)
class Target:
    """Something to be verified.

    Attributes:
        ref: what to call it.
        files: of it, the model's own first and in shard order.
        manifest: where the results are noted; None for a loose file.
    """

    ref: str
    files: tuple[StoredFile, ...]
    manifest: Manifest | None = None

    @property
    def model_files(self) -> list[StoredFile]:
        """Without projectors and drafts."""
        return [each for each in self.files if each.role == "model"]

    @property
    def paths(self) -> list[Path]:
        """Of the model's own files."""
        return [Path(each.location) for each in self.model_files]


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        name: which one.
        passed: None where it was not tried.
        message: one sentence for a person.
    """

    name: CheckName
    passed: bool | None
    message: str

    @property
    def status(self) -> str:
        """In a word or two."""
        return "not tried" if self.passed is None else "passed" if self.passed else "failed"


def run(
    refs: Sequence[str],
    *,
    every: bool,
    quick: bool,
    claims: tuple[Claim, ...],
    as_json: bool,
) -> None:
    """Verifies models one after the other, and notes in the store what was found.

    Args:
        refs: what the person typed.
        every: every version in the store, instead.
        quick: no test inference.
        claims: what the person says of the one file that is meant.
        as_json: one document, and no bars.

    Raises:
        IntegrityError: a check failed. UsageError, NotFoundError: nothing to verify.
    """
    found = _targets(refs, every=every, claims=claims)
    told = []
    damaged: list[tuple[Target, Outcome]] = []
    for target in found:
        outcomes = _examined(target, quick=quick, quiet=as_json)
        if target.manifest is not None:
            _note(target.manifest, outcomes)
        damaged += [(target, outcome) for outcome in outcomes if outcome.passed is False]
        told.append(_document(target, outcomes))
        if not as_json:
            _print(target, outcomes)
    if as_json:
        render.print_json({"schema_version": 1, "passed": not damaged, "models": told})
    if damaged:
        raise _error(damaged)
    if every and not found and not as_json:
        render.say("there are no models here to verify")


# -- what is meant ----------------------------------------------------------------------------


def _targets(refs: Sequence[str], *, every: bool, claims: tuple[Claim, ...]) -> list[Target]:
    if every == bool(refs):
        raise UsageError("name a model, or say --all", "localllm list shows what is here")
    if every:
        contents = Store.here().contents()
        kept.tell(contents.findings)
        found = [_stored(each) for each in contents.manifests]
    else:
        found = [target for ref in refs for target in _named(ref)]
    if claims:
        if len(found) != 1 or len(found[0].model_files) != 1:
            raise UsageError("--sha256 and --md5 are of one file", "name a model of one file")
        (target,) = found
        first, *others = target.files
        first = replace(first, proofs=(*claims, *first.proofs))
        found = [replace(target, files=(first, *others))]
    return found


def _named(ref: str) -> list[Target]:
    parsed = kept.reference(ref)
    if parsed.kind == "demo":
        return [_loose(ref, demo.model_path())]
    if parsed.kind == "file":
        manifests = finding.find_kept(parsed)
        path = references.expanded(parsed.text)
        return [_stored(each) for each in manifests] if manifests else [_loose(ref, path)]
    return [_stored(each) for each in kept.find_all(ref)]


def _stored(manifest: Manifest) -> Target:
    return Target(kept.typed_version(manifest), manifest.files, manifest)


def _loose(ref: str, path: Path) -> Target:
    files = []
    for shard in shard_paths(path):
        with localfile.FileSource(shard):  # which tells what keeps it from being read
            status = shard.stat()
        files.append(
            StoredFile(
                path=shard.name,
                location=str(shard.absolute()),
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                digests={},
                proofs=_side_cars(shard),
            )
        )
    return Target(ref, tuple(files))


def _side_cars(path: Path) -> tuple[Claim, ...]:
    """What checksum files in the same folder say of a file."""
    folder = path.absolute().parent
    listing = Listing(
        kind="url",
        repo=folder.as_uri(),
        asked="",
        revision="",
        files=tuple(
            RepoFile(each.name, each.stat().st_size) for each in folder.iterdir() if each.is_file()
        ),
        authority="this disk",
        is_origin=False,
    )
    claims: list[Claim] = []
    for each in checksums.listed_side_cars(listing, RepoFile(path.name, 0)):
        try:
            raw = (folder / each.path).read_bytes()
        except OSError:  # then it proves nothing
            continue
        claims += checksums.read_side_car(raw, each.path, path.name, each.path)
    return tuple(claims)


# -- the checks -------------------------------------------------------------------------------


def _examined(target: Target, *, quick: bool, quiet: bool) -> list[Outcome]:
    """All four, as far as one does not make the next pointless."""
    integrity = _integrity(target, quiet=quiet)
    if not all(path.is_file() for path in target.paths):
        return [integrity]
    structure = _outcome(check_structure(target.paths))
    outcomes = [integrity, structure]
    if structure.passed:
        name = target.model_files[0].path
        outcomes.append(_outcome(check_quantization(target.paths, name)))
    if quick:
        return outcomes
    if not structure.passed or integrity.passed is False:
        skipped = Outcome("inference", None, "what is damaged is not loaded")
        return [*outcomes, skipped]
    return [*outcomes, _inference(target)]


def _integrity(target: Target, *, quiet: bool) -> Outcome:
    """Every file against all that is known of it, with a bar."""
    said = []
    proven = True
    with Bars(sys.stderr, quiet=quiet) as bars:
        for file in target.files:

            def show(n_bytes: int, file: StoredFile = file) -> None:
                bars.step(Step(file.path, "verifying", n_bytes, file.size_bytes))

            if not file.digests and not file.proofs:
                digest = hash_file(Path(file.location), on_progress=show)["sha256"]
                said.append(f"nobody says what {file.path} must be; its sha256 is {digest}")
                proven = False
                continue
            check = check_integrity(file, show)
            if not check.passed:
                return _outcome(check)
            said.append(check.message)
    return Outcome("integrity", True if proven else None, "; ".join(said))


def _inference(target: Target) -> Outcome:
    from localllm.engine.trial import N_CTX, try_model

    try:
        opened = (
            finding.open_kept(target.manifest, target.ref)
            if target.manifest is not None
            else localfile.open_model(target.paths[0], target.ref, "file")
        )
        n_ctx = min(N_CTX, opened.model.n_ctx_train or N_CTX)
        found = FoundModels((opened,))
        plan = prepare.prepare(found, prepare.wishes(n_ctx=n_ctx), "chat").plan
        trial = try_model(plan)
    except (DoesNotFitError, EngineMissingError) as error:
        return Outcome("inference", None, error.message)
    except LocalllmError as error:
        return Outcome("inference", False, error.message)
    return Outcome("inference", trial.passed, trial.message)


def _outcome(check: Check) -> Outcome:
    return Outcome(check.name, check.passed, check.message)


# -- what is told -----------------------------------------------------------------------------


def _note(manifest: Manifest, outcomes: Sequence[Outcome]) -> None:
    """Writes down what passed when, and takes back what does not any more."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    verified = dict(manifest.verified)
    for outcome in outcomes:
        if outcome.passed:
            verified[outcome.name] = now
        elif outcome.passed is False:
            verified.pop(outcome.name, None)
    store = Store.here()
    if manifest in store.versions(manifest.name):  # else somebody pulled or removed it meanwhile
        store.update(replace(manifest, verified=verified))


def _document(target: Target, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    manifest = target.manifest
    return {
        "ref": kept.typed_name(manifest) if manifest is not None else target.ref,
        "revision": manifest.revision if manifest is not None else None,
        "files": [each.location for each in target.files],
        "checks": [
            {"name": each.name, "status": each.status, "message": each.message} for each in outcomes
        ],
    }


def _print(target: Target, outcomes: Sequence[Outcome]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = kept.table_console()
    out.print(Text(target.ref, "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a digest that is cut short is none
    for each in outcomes:
        mark, style = _MARKS[each.status]
        words = each.message if each.passed is not None else f"not tried: {each.message}"
        table.add_row(Text(mark, style), each.name, Text(words))
    out.print(table)


def _error(damaged: Sequence[tuple[Target, Outcome]]) -> IntegrityError:
    """The sentence for all that failed, and what mends it."""
    (first, outcome), *others = damaged
    more = f" (and {len(others)} more)" if others else ""
    lost = [
        target.manifest
        for target, outcome in damaged
        if target.manifest is not None and outcome.name == "integrity"
    ]
    if lost:
        hint = " && ".join(f"localllm pull {_pulled_as(each)}" for each in lost)
    elif first.manifest is not None:
        hint = "it is so at its source, where another quantization may be sound"
    else:
        hint = "get it again from where it came"
    return IntegrityError(
        f"{first.ref} failed its {outcome.name} check: {outcome.message}{more}", hint
    )


def _pulled_as(manifest: Manifest) -> str:
    """What brings this version again; the one in use is what its name means at its source."""
    name, current = kept.typed_name(manifest), Store.here().current(manifest.name)
    if manifest.kind == "url" or (current is not None and current.revision == manifest.revision):
        return name
    prefix = "ms:" if manifest.kind == "ms" else ""
    return f"{prefix}{manifest.repo}@{manifest.revision}:{manifest.label}"
