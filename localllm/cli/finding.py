"""What a reference names: the demo, a file, a folder of quantizations, a repository."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localllm import demo, paths
from localllm.errors import (
    DiskError,
    IntegrityError,
    LocalllmError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from localllm.gguf import MemorySource, parse_header
from localllm.hub import headers, known, localfile, open_source
from localllm.hub.known import Known, KnownModel
from localllm.hub.opened import Opened
from localllm.hub.patience import Limits
from localllm.hub.source import Listing, Offer, Source
from localllm.hub.web import Web, without_secrets
from localllm.naming import ModelRef, parse_ref
from localllm.plan import Candidate, Plan, Reason
from localllm.profiles import load_policy
from localllm.pull import model_path
from localllm.store import Manifest, Store
from localllm.store.checks import is_untouched
from localllm.variants import RepoFile, Variant, group_files, match_quant
from localllm.weights import read_weights


@dataclass(frozen=True)
class There:
    """A repository whose files can be downloaded.

    Attributes:
        source: the way to it; None for a llamafile on this disk.
        listing: what it holds.
        variants: the models in it that are to choose among.
    """

    source: Source | None
    listing: Listing
    variants: tuple[Variant, ...]

    def variant_of(self, opened: Opened) -> Variant:
        """The variant whose headers these are."""
        return next(each for each in self.variants if each.files == opened.model.files)


@dataclass(frozen=True)
class FoundModels:
    """Models to choose among.

    Attributes:
        models: quantizations of one model.
        seen: when they were looked at, seconds since 1970; None for now.
        there: where they can be downloaded; None for those that are here.
        kept: their manifests, where they were pulled.
        beside: outlines of projectors that are not here yet, by the path that they will have.
        note: a sentence for the person.
        listed: they are what was left of a repository's listing.
    """

    models: tuple[Opened, ...]
    seen: float | None = None
    there: There | None = None
    kept: tuple[Manifest, ...] = ()
    beside: Mapping[str, tuple[MemorySource, ...]] = field(default_factory=dict)
    note: str | None = None
    listed: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether the quantization that was asked for is the only one left."""
        return self.there is not None or bool(self.kept) or self.listed

    @property
    def mmproj(self) -> str | None:
        """The projector that was pulled with one of them."""
        files = (file for manifest in self.kept for file in manifest.files)
        return next((file.location for file in files if file.role == "mmproj"), None)

    @property
    def candidates(self) -> list[Candidate]:
        """Each under a name of its own: the quantization, or where that is not enough the file."""
        labels = [each.label or each.model.quant or _stem(each) for each in self.models]
        return [
            Candidate(
                label if labels.count(label) == 1 else _stem(opened),
                opened.model,
                opened.weights,
                opened.unusable,
            )
            for label, opened in zip(labels, self.models, strict=True)
        ]

    def told(self, plan: Plan) -> Plan:
        """The plan, saying first that its model is not here, if that is so."""
        because = None
        if self.seen is not None:
            day = time.strftime("%Y-%m-%d", time.localtime(self.seen))
            because = f"not here now: planned from its header as it was on {day}"
        elif self.there is not None:
            because = "not here yet: planned from its header"
        if because is None:
            return plan
        reason = Reason("model", plan.model.path, because, "measured")
        return replace(plan, reasons=(reason, *plan.reasons))


def find_here(ref: str | ModelRef, quant: str | None = None) -> FoundModels:
    """Reads the headers of what the reference names on this disk.

    Args:
        ref: what the person typed.
        quant: the one of a repository that is meant; a folder's are the planner's to choose.

    Raises:
        NotFoundError: no such file, a missing shard, or a name that is not on this disk.
        IntegrityError: a check found it damaged.
        GgufError, AccessError, UsageError: see `localfile.open_model`.
    """
    parsed = resolve(ref)
    ref = shown(parsed)
    if parsed.kind == "demo":
        return FoundModels((localfile.open_model(demo.model_path(), ref, "demo"),))
    if parsed.kind == "file":
        path = expanded(ref)
        if path.is_dir():
            return FoundModels(tuple(localfile.open_folder(path, ref)))
        if path.suffix.lower() == ".llamafile":
            return _find_extracted(path, ref)
        return FoundModels((localfile.open_model(path, ref, "file"),))
    for kind, test in (("folder", Path.is_dir), ("file", Path.is_file)):
        if test(Path(ref)):
            message = f"there is no model called {ref!r}"
            raise NotFoundError(message, f"for the {kind}, write ./{ref}")
    kept = find_kept(parsed, quant)
    if not kept:
        raise NotFoundError(f"{ref} is not on this disk", f"localllm pull {ref}")
    models = tuple(open_kept(each, ref) for each in kept)
    return FoundModels(models, kept=kept, note=_doubt(kept, ref))


def find_there(
    ref: str | ModelRef, web: Web, quant: str | None = None, file: str | None = None
) -> FoundModels:
    """Reads the headers of what a repository offers, and keeps what they tell.

    Args:
        ref: what the person typed: a repository, a URL, an alias.
        web: the way there.
        quant: the only one that is meant.
        file: the only file that is meant, as the repository lists it.

    Raises:
        NetworkError, AccessError, NotFoundError: it is not to be had.
        UsageError: a file on this disk, which is nowhere else; or a quantization that may be any
            of several.
        IntegrityError: it names a file that must not be written.
    """
    parsed = resolve(ref)
    source, its_file = _source(parsed, web)
    return find_in(source, shown(parsed), quant or parsed.quant, file or its_file)


def find_in(
    offer: Offer, ref: str, quant: str | None = None, file: str | None = None
) -> FoundModels:
    """As `find_there`, of an offer that is known."""
    listing = offer.listing()
    variants = _wanted(listing, quant, file)
    seen = known.recall(offer.key)
    repo = Store.here().repo(listing.kind, listing.repo)

    def path_of(variant: Variant) -> str:
        return str(repo.snapshot_path(listing.revision, model_path(variant.files[0].path)))

    told = [_recalled(seen, listing, variant, ref, path_of) for variant in variants]
    unread = [variant for variant, opened in zip(variants, told, strict=True) if opened is None]
    fresh = iter(headers.read_headers(offer, listing, unread, ref=ref, path_of=path_of))
    models = tuple(
        _labelled(opened or next(fresh), variant)
        for opened, variant in zip(told, variants, strict=True)
    )
    _remember(offer.key, listing, models, seen)
    if all(each.unusable for each in models):
        raise _useless(listing, models[0].label, models[0].unusable)
    source = offer if isinstance(offer, Source) else None
    return FoundModels(models, there=There(source, listing, variants))


def find_models(ref: str | ModelRef, web: Web, quant: str | None = None) -> FoundModels:
    """What there is to plan with: here, there, or seen before.

    Order: 1. files and folders; what was there once, from memory; 2. a repository, asked now;
    3. when it does not answer: what it was when it last did; 4. what was pulled of it.

    Raises:
        As `find_here` and `find_there`.
    """
    parsed = resolve(ref)
    if parsed.kind in ("demo", "file"):
        key = f"file:{expanded(parsed.text).absolute()}"
        try:
            found = find_here(parsed)
        except NotFoundError:
            seen = known.recall(key)
            if seen is None or not seen.models:
                raise
            return FoundModels(tuple(map(_from_memory, seen.models)), seen=seen.when)
        if parsed.kind == "file" and not found.kept:
            _remember(key, None, found.models, known.recall(key))
        return found
    try:
        return find_there(parsed, web, quant)
    except NetworkError as error:
        return _without_network(parsed, web, quant, error)


def find_kept(parsed: ModelRef, quant: str | None = None) -> tuple[Manifest, ...]:
    """What was pulled of a repository, one version of each of its models.

    The version in use, or the one that the reference names. Of a file: the version whose file it
    is, or whose llamafile.
    """
    store = Store.here()
    if parsed.kind == "file":
        path = expanded(parsed.text).absolute()
        if path.suffix.lower() != ".llamafile":
            return _manifests_of(path)
        kept = store.find("url", path.parent.as_uri())
        return tuple(each for each in kept if _has_file(each, path.name))
    source, file = _source(parsed, Web(offline=True))
    kept = store.find(source.kind, source.repo, revision=parsed.revision)
    if source.kind == "url":
        # A server's folder stands for a repository, of which the URL may name one file.
        name = unquote(urlsplit(parsed.text).path).rpartition("/")[2]
        file = name if name.lower().endswith((".gguf", ".llamafile")) else None
    wanted = quant or parsed.quant
    if file is not None:
        kept = tuple(each for each in kept if _has_file(each, file))
    if wanted is not None:
        kept = tuple(each for each in kept if each.label.upper() == wanted.upper())
    return kept


def _manifests_of(path: Path) -> tuple[Manifest, ...]:
    """The version whose file in the store this is."""
    manifests = Store.here().contents().manifests
    return tuple(m for m in manifests if any(f.location == str(path) for f in m.files))[:1]


def _has_file(manifest: Manifest, path: str) -> bool:
    return any(each.path == path for each in manifest.files)


def make_web(*, offline: bool = False) -> Web:
    """The way to the network, as patient as the policy says.

    Args:
        offline: nobody is to be asked. The hub's own switch, HF_HUB_OFFLINE, means the same.
    """
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    limits = Limits(
        idle_seconds=policy.download_idle_seconds,
        attempts=policy.download_attempts,
        wait_seconds=policy.download_wait_seconds,
    )
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    # The values that huggingface_hub takes for true (constants.py).
    is_off = any(value.upper() in ("1", "ON", "YES", "TRUE") for value in switches)
    return Web(limits, offline=offline or is_off)


def resolve(ref: str | ModelRef) -> ModelRef:
    """The reference, read, and an alias of the catalogue replaced by the repository it stands for.

    Raises:
        UsageError: not a reference. NotFoundError: no such alias.
    """
    parsed = parse_ref(ref) if isinstance(ref, str) else ref
    if parsed.kind != "alias":
        return parsed
    from localllm.catalogue import load_catalogue

    if Path(parsed.text).exists():  # the hint about ./ is of more use than one about aliases
        return parsed
    entry = load_catalogue(paths.shipped_profiles_dir(), paths.config_dir()).find(parsed.text)
    return replace(parsed, kind="hf", repo=entry.repo)


def expanded(ref: str) -> Path:
    """The path that a person typed, with their home in it.

    Raises:
        NotFoundError: it begins with somebody's home who is not known.
    """
    try:
        return Path(ref).expanduser()
    except RuntimeError:  # ~nobody-knows/x
        raise NotFoundError(f"{ref!r} begins with an unknown user's home", "write it out") from None


def shown(parsed: ModelRef) -> str:
    """The reference as it may be shown and kept: a URL may hold secrets."""
    return without_secrets(parsed.text) if parsed.kind == "url" else parsed.text


def _source(parsed: ModelRef, web: Web) -> tuple[Source, str | None]:
    if parsed.kind in ("demo", "file", "alias"):
        raise UsageError(f"{parsed.text!r} is not a repository", "name it as org/repo, or a URL")
    return open_source(parsed, web)


def _wanted(listing: Listing, quant: str | None, file: str | None) -> tuple[Variant, ...]:
    """The variants that the quantization or the file leaves.

    Raises:
        NotFoundError: none. UsageError: several are meant.
    """
    if file is not None:
        found = tuple(each for each in group_files(listing.files) if _holds(each, file))
        if not found:
            raise NotFoundError(
                f"{listing.repo} has no model in a file {file!r}", "try without --file"
            )
        return found[:1]
    variants = group_files(listing.files)
    if not variants:
        raise NotFoundError(
            f"{listing.repo} on {listing.authority} has no GGUF model",
            "look for a repository whose name ends in -GGUF",
        )
    if quant is not None:
        return (match_quant(quant, variants),)
    if all(variant.unusable for variant in variants):
        raise _useless(listing, variants[0].label, variants[0].unusable)
    return variants


def _useless(listing: Listing, label: str, why: str | None) -> IntegrityError:
    return IntegrityError(
        f"{label} of {listing.repo} cannot be run: {why}",
        "it is so at its source: name another file, or tell its owner",
    )


def _holds(variant: Variant, file: str) -> bool:
    return any(each.path == file for each in variant.files)


def _recalled(
    seen: Known | None,
    listing: Listing,
    variant: Variant,
    ref: str,
    path_of: Callable[[Variant], str],
) -> Opened | None:
    """The variant as it was seen before, where its files are still the same."""
    if seen is None or seen.listing is None:
        return None
    is_proven = all(file.sha256 for file in variant.files)
    if not is_proven and seen.listing.revision != listing.revision:
        return None
    for each in seen.models:
        if each.model.files == variant.files:
            model = replace(each.model, ref=ref, path=path_of(variant), revision=listing.revision)
            return _from_memory(KnownModel(model, each.outlines))
    return None


def _from_memory(each: KnownModel) -> Opened:
    weights = read_weights([parse_header(outline) for outline in each.outlines])
    return Opened(each.model, weights, each.outlines)


def _labelled(opened: Opened, variant: Variant) -> Opened:
    """With the names that the repository gives: an UD-Q4_K_XL's header says Q4_K_M."""
    model = replace(opened.model, quant=variant.quant or opened.model.quant)
    return replace(opened, label=variant.label, model=model)


def _remember(
    key: str, listing: Listing | None, found: tuple[Opened, ...], seen: Known | None
) -> None:
    models = [KnownModel(each.model, each.outlines) for each in found if not each.unusable]
    if seen is not None and listing is not None:
        # Those that were not asked for this time, as long as the repository still has them.
        now = {model.model.files for model in models}
        still = set(listing.files)
        models += [
            each
            for each in seen.models
            if each.model.files not in now and still.issuperset(each.model.files)
        ]
    if seen is not None and (seen.listing, seen.models) == (listing, tuple(models)):
        return  # which is most of the time, and reading is quicker than writing
    with contextlib.suppress(DiskError):  # a full disk is no reason not to plan
        known.remember(key, listing, models)


def _without_network(
    parsed: ModelRef, web: Web, quant: str | None, error: NetworkError
) -> FoundModels:
    """What was seen of a repository that does not answer, or what was pulled of it."""
    source, file = _source(parsed, web)
    seen = known.recall(source.key)
    if seen is not None and seen.listing is not None:
        with contextlib.suppress(LocalllmError):
            variants = _wanted(seen.listing, quant or parsed.quant, file)
            by_files = {each.model.files: each for each in seen.models}
            models = tuple(
                _labelled(_from_memory(by_files[variant.files]), variant)
                for variant in variants
                if variant.files in by_files
            )
            if models:
                return FoundModels(models, seen=seen.when, note=error.message, listed=True)
    kept = find_kept(parsed, quant)
    if not kept:
        raise error
    models = tuple(open_kept(each, shown(parsed)) for each in kept)
    return FoundModels(models, kept=kept, note=error.message)


def recall_kept(manifest: Manifest, ref: str) -> Opened | None:
    """A pulled model as its headers were when it was pulled; None where that is forgotten."""
    if manifest.kind == "url":
        key = f"url:{manifest.repo}/{manifest.files[0].path}"
    else:
        there = ModelRef(manifest.kind, ref, manifest.repo, manifest.asked)
        key = _source(there, Web(offline=True))[0].key
    seen = known.recall(key)
    if seen is None or seen.listing is None or seen.listing.revision != manifest.revision:
        return None
    paths_kept = [each.path for each in manifest.files if each.role == "model"]
    for each in seen.models:
        if [file.path for file in each.model.files] == paths_kept:
            opened = _from_memory(each)
            location = manifest.files[0].location
            model = replace(opened.model, path=location, quant=manifest.quant or each.model.quant)
            return replace(opened, model=model, label=manifest.label)
    return None


def open_kept(manifest: Manifest, ref: str) -> Opened:
    """A pulled model, from its files.

    Raises:
        NotFoundError: somebody removed them.
    """
    path = Path(manifest.files[0].location)
    try:
        opened = localfile.open_model(path, ref, manifest.kind)
    except NotFoundError as exc:
        raise NotFoundError(
            f"{manifest.name} was pulled, and {path} is gone", f"localllm pull {ref}"
        ) from exc
    model = replace(
        opened.model,
        revision=manifest.revision,
        quant=manifest.quant or opened.model.quant,
        files=tuple(
            RepoFile(each.path, each.size_bytes, each.digests["sha256"])
            for each in manifest.files
            if each.role == "model"
        ),
    )
    return replace(opened, model=model, label=manifest.label)


def _doubt(kept: Sequence[Manifest], ref: str) -> str | None:
    """A sentence where files are not as they were when they were proven.

    Raises:
        IntegrityError: a check found one damaged.
    """
    for manifest in kept:
        if "integrity" not in manifest.verified:
            raise IntegrityError(
                f"{manifest.name} is damaged, as a check found", f"localllm pull {ref}"
            )
        if not all(is_untouched(file) for file in manifest.files):
            return f"{manifest.name} was written to since it was proven: localllm verify {ref}"
    return None


def _find_extracted(path: Path, ref: str) -> FoundModels:
    kept = find_kept(ModelRef("file", str(path)))  # the llamafile may be gone by now
    if not kept and not path.exists():
        raise NotFoundError(f"there is no file {path}", "check the path")
    if not kept:
        raise NotFoundError(
            f"the model inside {path} has to be taken out of it first", f"localllm pull {ref}"
        )
    return FoundModels((open_kept(kept[0], ref),), kept=kept[:1], note=_doubt(kept[:1], ref))


def _stem(opened: Opened) -> str:
    return Path(opened.model.path).stem
