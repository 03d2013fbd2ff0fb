"""What a repository offers: its variants, planned from headers that are read or remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from localllm.cli.found import FoundModels, There
from localllm.errors import DiskError, IntegrityError, NotFoundError
from localllm.gguf import parse_header
from localllm.hub import headers, known
from localllm.hub.known import Known, KnownModel
from localllm.hub.opened import Opened
from localllm.hub.source import Listing, Offer, Source
from localllm.pull import model_path
from localllm.store import Store
from localllm.variants import Variant, group_files, match_quant
from localllm.weights import read_weights


def find_in(
    offer: Offer, ref: str, quant: str | None = None, file: str | None = None
) -> FoundModels:
    """As `find_there`, of an offer that is known."""
    listing = offer.listing()
    variants = wanted(listing, quant, file)
    seen = known.recall(offer.key)
    repo = Store.here().repo(listing.kind, listing.repo)

    def path_of(variant: Variant) -> str:
        return str(repo.snapshot_path(listing.revision, model_path(variant.files[0].path)))

    told = [_recalled(seen, listing, variant, ref, path_of) for variant in variants]
    unread = [variant for variant, opened in zip(variants, told, strict=True) if opened is None]
    fresh = iter(headers.read_headers(offer, listing, unread, ref=ref, path_of=path_of))
    models = tuple(
        labelled(opened or next(fresh), variant)
        for opened, variant in zip(told, variants, strict=True)
    )
    remember(offer.key, listing, models, seen)
    if all(each.unusable for each in models):
        raise _useless(listing, models[0].label, models[0].unusable)
    source = offer if isinstance(offer, Source) else None
    return FoundModels(models, there=There(source, listing, variants))


def wanted(listing: Listing, quant: str | None, file: str | None) -> tuple[Variant, ...]:
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
            return from_memory(KnownModel(model, each.outlines))
    return None


def from_memory(each: KnownModel) -> Opened:
    """A model as its headers were when they were read."""
    weights = read_weights([parse_header(outline) for outline in each.outlines])
    return Opened(each.model, weights, each.outlines)


def labelled(opened: Opened, variant: Variant) -> Opened:
    """With the names that the repository gives: an UD-Q4_K_XL's header says Q4_K_M."""
    model = replace(opened.model, quant=variant.quant or opened.model.quant)
    return replace(opened, label=variant.label, model=model)


def remember(
    key: str, listing: Listing | None, found: tuple[Opened, ...], seen: Known | None
) -> None:
    """Keeps what headers told, for a plan without them."""
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
