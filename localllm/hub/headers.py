"""The headers of a repository's models, read over the network with as little as will do.

Knows which files are asked and in what order: one model whole, the others as its siblings
(splice.py), several at a time. Knows nothing of what a header means.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence

from localllm.errors import AccessError, LocalllmError, NetworkError
from localllm.gguf import ByteSource, Header, MemorySource, parse_header
from localllm.hub import llamafile
from localllm.hub.opened import Opened, opened
from localllm.hub.source import Listing, Offer
from localllm.outline import outline
from localllm.plan import Model
from localllm.readahead import ReadAhead
from localllm.splice import Reference, read_sibling
from localllm.variants import Variant
from localllm.weights import Weights

#: Headers read at a time; waiting for the network is most of it.
_AT_ONCE = 6

PathOf = Callable[[Variant], str]


def read_headers(
    source: Offer,
    listing: Listing,
    variants: Sequence[Variant],
    *,
    ref: str,
    path_of: PathOf,
) -> list[Opened]:
    """What the headers of these variants tell, in their order.

    A variant that is unusable or damaged is told as such, and is no reason to leave the others.

    Args:
        source: where they are.
        listing: what it holds.
        variants: of the listing.
        ref: what the person typed.
        path_of: where a variant's first file would be on this disk.

    Raises:
        NetworkError, AccessError: the source stopped answering.
    """

    def read(variant: Variant, reference: Reference | None) -> tuple[Opened, Reference | None]:
        if variant.unusable:
            return _unusable(variant, listing, ref, path_of, variant.unusable), None
        try:
            return _read_variant(source, listing, variant, reference, ref, path_of)
        except (NetworkError, AccessError):
            raise
        except LocalllmError as exc:
            return _unusable(variant, listing, ref, path_of, exc.message), None

    found: dict[int, Opened] = {}
    reference = None
    at = 0
    # One after the other until there is one to compare with: the smallest header is as good as any.
    while at < len(variants) and reference is None:
        found[at], reference = read(variants[at], None)
        at += 1
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        rest = {i: pool.submit(read, variants[i], reference) for i in range(at, len(variants))}
        found.update((i, future.result()[0]) for i, future in rest.items())
    return [found[i] for i in range(len(variants))]


def _read_variant(
    source: Offer,
    listing: Listing,
    variant: Variant,
    reference: Reference | None,
    ref: str,
    path_of: PathOf,
) -> tuple[Opened, Reference | None]:
    headers: list[Header] = []
    outlines: list[MemorySource] = []
    for file in variant.files:
        reader: ByteSource = source.remote(listing, file)
        if file.path.lower().endswith(".llamafile"):
            reader = llamafile.open_member(reader)
        told = read_sibling(reader, reference) if reference is not None else None
        if told is None:
            told, data = _read_whole(reader)
            if reference is None:
                reference = Reference(data, told[0])
        headers.append(told[0])
        outlines.append(told[1])
    model = opened(
        headers,
        outlines,
        ref=ref,
        path=path_of(variant),
        source=listing.kind,
        revision=listing.revision,
        files=variant.files,
    )
    return model, reference


def _read_whole(source: ByteSource) -> tuple[tuple[Header, MemorySource], bytes]:
    ahead = ReadAhead(source)
    header = parse_header(ahead)
    return (header, outline(ahead, header)), ahead.fetched


def _unusable(variant: Variant, listing: Listing, ref: str, path_of: PathOf, why: str) -> Opened:
    model = Model(
        ref=ref,
        path=path_of(variant),
        source=listing.kind,
        revision=listing.revision,
        name=variant.label,
        quant=variant.quant,
        size_bytes=variant.size_bytes,
        files=variant.files,
    )
    return Opened(model, Weights(()), (), unusable=why)
