"""`localllm pull`: what would be downloaded and why, the question, the bars, what was proven."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from localllm.cli import asking, finding, kept, offers, prepare, references, render
from localllm.cli.found import FoundModels
from localllm.cli.progress import Bars
from localllm.digests import Claim, make_claim
from localllm.errors import LocalllmError, NetworkError, NotFoundError, UsageError
from localllm.gguf import parse_header
from localllm.hub.pace import Connections
from localllm.hub.web import Web
from localllm.naming import ModelRef, parse_ref
from localllm.outline import outline
from localllm.planner import Wishes
from localllm.pull import Order, Pulled, missing_bytes, pull
from localllm.readahead import ReadAhead
from localllm.store import Manifest, Store
from localllm.store.checks import is_untouched
from localllm.store.manifest import Role
from localllm.units import format_bytes
from localllm.variants import RepoFile, Variant


@dataclass(frozen=True)
class Request:
    """What a person wants pulled.

    Attributes:
        ref: the model.
        quant, revision, file: which of the repository's; None leaves it to the plan.
        claims: --sha256 and --md5.
        with_mmproj, with_draft: what shall come with it.
        goal: what the plan is for.
        wishes: explicit values of the plan.
    """

    ref: str
    quant: str | None = None
    revision: str | None = None
    file: str | None = None
    claims: tuple[Claim, ...] = ()
    with_mmproj: bool = False
    with_draft: bool = False
    goal: str = "chat"
    wishes: Wishes = field(default_factory=Wishes)


@dataclass(frozen=True)
class Chosen:
    """What was decided to pull."""

    order: Order
    prepared: prepare.Prepared

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file, _ in self.order.files)

    @property
    def missing_bytes(self) -> int:
        """Of these, what would have to be downloaded."""
        return missing_bytes(self.order, Store.here())


def claims_of(sha256: str | None, md5: str | None) -> tuple[Claim, ...]:
    """The flags as claims.

    Raises:
        UsageError: they are no digests.
    """
    claims = []
    if sha256 is not None:
        claims.append(make_claim(sha256, "--sha256", algorithm="sha256"))
    if md5 is not None:
        claims.append(make_claim(md5, "--md5", algorithm="md5"))
    return tuple(claims)


def run(request: Request, *, offline: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Pulls one model.

    Raises:
        LocalllmError: it is not to be had, does not fit, or is not what it claims to be.
    """
    chosen = choose(request, references.make_web(offline=offline))
    if isinstance(chosen, Manifest):
        if as_json:
            told = _told(chosen, ["here"] * len(chosen.files), [], [])
            render.print_json({"schema_version": 1, **told, "fetched_bytes": 0})
        else:
            render.say(f"{kept.typed_name(chosen)} is here")
        return
    if dry_run:
        if as_json:
            render.print_json({**prepare.document(chosen.prepared), "dry_run": True})
        else:
            show(chosen)
        return
    if not as_json:
        show(chosen)
    if not yes and not agreed(chosen):
        render.say("nothing was downloaded")
        return
    pulled = fetch(chosen, quiet=as_json)
    if as_json:
        checks = [vars(check) for check in pulled.checks]
        told = _told(pulled.manifest, pulled.how, checks, pulled.warnings)
        render.print_json({"schema_version": 1, **told, "fetched_bytes": pulled.fetched_bytes})
    else:
        tell(pulled)


def choose(request: Request, web: Web) -> Chosen | Manifest:
    """The plan for what is to be pulled; or what is here, where nobody can be asked.

    Raises:
        As `finding.find_there` and `prepare.prepare`; UsageError: what is asked for to come with
        it is not there.
    """
    parsed = references.resolve(request.ref)
    if parsed.kind == "demo":
        raise UsageError("the demo comes with localllm", "try: localllm chat demo")
    if request.revision is not None:
        if parsed.repo is None:
            raise UsageError("--revision is for repositories", "name one as org/repo")
        parsed = replace(parsed, revision=_revision(request.revision))
    if parsed.kind == "file":
        return _local(request, parsed)
    try:
        found = finding.find_there(parsed, web, request.quant, request.file)
    except NetworkError as error:
        here = [each for each in finding.find_kept(parsed, request.quant) if _is_it(each, request)]
        if not here:
            raise
        render.say(f"warning: {error.message}; what is here was not compared with it")
        return here[0]
    return _planned(request, found)


def _revision(text: str) -> str:
    """What --revision says, which is what may stand behind an @ as well.

    Raises:
        UsageError: it is no name of a revision.
    """
    with contextlib.suppress(UsageError):
        if parse_ref(f"org/repo@{text}").revision == text:
            return text
    raise UsageError(f"{text[:100]!r} is no branch, tag or commit", "--revision main")


def _is_it(manifest: Manifest, request: Request) -> bool:
    """Whether a version that is here is all that is wanted, and as it was proven."""
    files = manifest.files
    roles = {file.role for file in files}
    return (
        "integrity" in manifest.verified
        and request.file in (None, *(file.path for file in files))
        and (not request.with_mmproj or "mmproj" in roles)
        and (not request.with_draft or "draft" in roles)
        and all(is_untouched(file) for file in files)
        and all(
            file.has(claim.algorithm, claim.hex)
            for file in files
            if file.role == "model"
            for claim in request.claims
        )
    )


def _planned(request: Request, found: FoundModels) -> Chosen:
    assert found.there is not None
    there = found.there
    beside: list[tuple[RepoFile, Role]] = []
    wishes = request.wishes
    if request.with_mmproj:
        file = _companion(there.variants, "mmproj", there.listing.repo)
        beside.append((file, "mmproj"))
        repo = Store.here().repo(there.listing.kind, there.listing.repo)
        path = str(repo.snapshot_path(there.listing.revision, file.path))
        assert there.source is not None
        source = ReadAhead(there.source.remote(there.listing, file))
        found = replace(found, beside={path: (outline(source, parse_header(source)),)})
        wishes = replace(wishes, mmproj=path)
    if request.with_draft:
        beside.append((_companion(there.variants, "drafts", there.listing.repo), "draft"))
    prepared = prepare.prepare(found, wishes, request.goal)
    opened = next(each for each in found.models if each.model.path == prepared.plan.model.path)
    order = Order(
        source=there.source,
        listing=there.listing,
        variant=there.variant_of(opened),
        model=opened.model,
        beside=tuple(beside),
        claims=request.claims,
        reserve_bytes=prepared.policy.disk_reserve_bytes,
        connections=Connections(most=prepared.policy.download_connections),
    )
    return Chosen(order, prepared)


def _local(request: Request, parsed: ModelRef) -> Chosen:
    """A llamafile on this disk, whose model is to be taken out."""
    from localllm.hub.localfile import LocalArchive

    path = references.expanded(parsed.text)
    if path.suffix.lower() != ".llamafile":
        if not path.exists():
            raise NotFoundError(f"there is no file {path}", "check the path")
        raise UsageError(
            f"{path} is on this disk already", f"localllm verify {path}, or chat with it"
        )
    source = LocalArchive(path)
    found = offers.find_in(source, parsed.text)
    chosen = _planned(request, found)
    return replace(chosen, order=replace(chosen.order, archive=path.absolute()))


def _companion(variants: tuple[Variant, ...], what: str, repo: str) -> RepoFile:
    for variant in variants:
        files: tuple[RepoFile, ...] = getattr(variant, what)
        if files:
            return files[0]
    raise NotFoundError(
        f"{repo} has no {'projector' if what == 'mmproj' else 'draft model'}",
        "leave out --with-mmproj" if what == "mmproj" else "leave out --with-draft",
    )


def show(chosen: Chosen) -> None:
    """The plan, and what it would cost to have."""
    render.print_plan(chosen.prepared.plan, sys.stderr, command=False)
    listing, order = chosen.order.listing, chosen.order
    names = ", ".join(file.path for file, _ in order.files[:3])
    more = f" and {len(order.files) - 3} more" if len(order.files) > 3 else ""
    folder = Store.here().repo(listing.kind, listing.repo).root
    render.say(
        f"{format_bytes(chosen.size_bytes)} from {listing.authority}, {listing.repo}"
        f"@{listing.revision[:12]}: {names}{more}"
    )
    render.say(f"to {render.home_shortened(str(folder))}")


def agreed(chosen: Chosen) -> bool:
    """Whether the person wants it downloaded; what needs no download is not asked about.

    Raises:
        UsageError: there is nobody to ask.
    """
    n_bytes = chosen.missing_bytes
    if not n_bytes:
        return True
    due = format_bytes(n_bytes)
    return asking.agreed(f"Download {due}?", f"a download of {due}", unless_told=True)


def fetch(chosen: Chosen, *, quiet: bool = False) -> Pulled:
    """Downloads and proves it, with bars.

    Raises:
        KeyboardInterrupt: the person wants no more of it; what is here stays.
    """
    try:
        with Bars(sys.stderr, quiet=quiet) as bars:
            return pull(chosen.order, Store.here(), bars.step)
    except KeyboardInterrupt:
        render.say("stopped; the same command goes on where it stopped")
        raise


def tell(pulled: Pulled) -> None:
    """What was proven, by whose word, and what to do now."""
    for file, how in zip(pulled.manifest.files, pulled.how, strict=True):
        said = [_said(claim) for claim in file.proofs]
        said += [f"its llamafile's {_said(claim)}" for claim in file.archive_proofs]
        proof = "; ".join(said) or f"nobody claims a digest; sha256 {file.digests['sha256']}"
        origin = {"downloaded": "downloaded", "here": "was here"}.get(how, f"linked from {how}")
        render.say(f"{file.path}: {origin}, {proof}")
    for check in pulled.checks:
        render.say(f"{check.name}: {check.message}")
    for warning in pulled.warnings:
        render.say(f"warning: {warning}")
    render.say(f"ready: localllm chat {kept.typed_name(pulled.manifest)}")


def _said(claim: Claim) -> str:
    """As in "sha256 as huggingface.co says"."""
    alone = ", which proves the transfer alone" if claim.proves == "transfer" else ""
    return f"{claim.algorithm} as {claim.by} says{alone}"


def _told(manifest: Manifest, how: Any, checks: Any, warnings: Any) -> dict[str, Any]:
    return {
        **kept.document(manifest),
        "files": [
            {**kept.file_document(file), "from": origin}
            for file, origin in zip(manifest.files, how, strict=True)
        ],
        "checks": checks,
        "warnings": list(warnings),
    }


def offer(ref: str, error: LocalllmError, wishes: Wishes, goal: str) -> FoundModels:
    """For a model that is not here: the question whether to pull it, and then the model.

    Raises:
        LocalllmError: the error, where nobody can be asked or the answer is no.
    """
    parsed = references.resolve(ref)
    if parsed.kind in ("demo", "file", "alias") or not asking.can_ask():
        raise error
    request = Request(ref, quant=wishes.quant, goal=goal, wishes=replace(wishes, quant=None))
    chosen = choose(request, references.make_web())
    if isinstance(chosen, Chosen):
        show(chosen)
        if not agreed(chosen):
            raise error
        tell(fetch(chosen))
    return finding.find_here(ref, wishes.quant)
