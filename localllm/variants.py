"""Variants: the files of a model repository put together to what can be downloaded and run.

Pure: a listing in, choices out. What a single name means is localllm/naming.py; which variant
suits the machine is the planner's to say.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from localllm.errors import NotFoundError, UsageError
from localllm.naming import FileName, read_file_name
from localllm.quants import ALIASES, find_quant, quality_order
from localllm.units import format_bytes


@dataclass(frozen=True)
class RepoFile:
    """A file as a repository lists it.

    Attributes:
        path: with forward slashes, from the repository's root.
        size_bytes: of the file.
        sha256: of its content, where the listing has it.
        git_sha1: what git calls it, where the listing has nothing better.
    """

    path: str
    size_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Variant:
    """One choice of a repository: a model in one quantization.

    Attributes:
        label: what to call it; no two variants of a repository share one. The quantization where
            that is enough, else the file's stem, else the folder with it.
        quant: canonical; None where the names do not say.
        name: the first file, read.
        files: in shard order, without those that are missing.
        n_shards: files of a whole set; 1 for a model in one file.
        missing: numbers of the shards that the repository does not list.
        mmproj: projectors that may belong to it, the nearest folder first.
        drafts: draft models and MTP heads that may belong to it, likewise.
    """

    label: str
    quant: str | None
    name: FileName
    files: tuple[RepoFile, ...]
    n_shards: int = 1
    missing: tuple[int, ...] = ()
    mmproj: tuple[RepoFile, ...] = ()
    drafts: tuple[RepoFile, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all its files, without projectors and drafts."""
        return sum(file.size_bytes for file in self.files)

    @property
    def is_complete(self) -> bool:
        """Whether every shard is listed."""
        return not self.missing

    @property
    def folder(self) -> str:
        """The sub-folder that its files are in; "" at the root."""
        return self.name.folder

    @property
    def unusable(self) -> str | None:
        """Why it cannot be run, in a clause; None where nothing speaks against it."""
        if self.name.unusable:
            return self.name.unusable
        if self.missing:
            return f"shards {_numbers(self.missing)} of {self.n_shards} are missing"
        return None


def group_files(files: Iterable[RepoFile]) -> tuple[Variant, ...]:
    """The variants of a repository, best quality first, the same for any order of the listing.

    Files are one variant when they are shards of one set: the same folder, stem and number of
    shards. What is a variant: 1. GGUF models; 2. where there are none, llamafiles; 3. where
    there are none of these either, drafts (a repository of nothing but draft models).
    """
    listed = {file.path: file for file in sorted(files, key=lambda file: file.path)}
    names = [read_file_name(path) for path in listed]
    models = [name for name in names if name.kind == "model"]
    drafts = [name for name in names if name.kind == "draft"]
    chosen = [name for name in models if name.path.lower().endswith(".gguf")] or models or drafts
    sets: dict[tuple[str, str, int | None], dict[int, FileName]] = {}
    for name in chosen:
        shards = sets.setdefault((name.folder, name.stem, name.n_shards), {})
        shards.setdefault(name.shard or 1, name)
    variants = []
    for shards in sets.values():
        first = shards[min(shards)]
        n_shards = first.n_shards or 1
        variants.append(
            Variant(
                label="",
                quant=first.quant,
                name=first,
                files=tuple(listed[shards[no].path] for no in sorted(shards)),
                n_shards=n_shards,
                missing=tuple(no for no in range(1, n_shards + 1) if no not in shards),
            )
        )
    variants.sort(key=_place)
    bases = {variant.name.base for variant in variants}
    projectors = [name for name in names if name.kind == "mmproj"]
    if chosen is drafts:
        drafts = []
    return tuple(
        replace(
            variant,
            label=label,
            mmproj=tuple(listed[n.path] for n in _companions(projectors, variant.name, bases)),
            drafts=tuple(listed[n.path] for n in _companions(drafts, variant.name, bases)),
        )
        for variant, label in zip(variants, _labels(variants), strict=True)
    )


def _place(variant: Variant) -> tuple[bool, int, str, str, int]:
    """Known quantizations by quality, best first; then those that the ladder does not know."""
    order = quality_order(variant.quant) if variant.quant else None
    name = variant.name
    return (order is None, -(order or 0), name.folder, name.stem, variant.n_shards)


def _labels(variants: Sequence[Variant]) -> list[str]:
    """A label for each: the shortest of its names that no other variant has as well."""
    names = [_names(variant) for variant in variants]
    owners = Counter(name for row in names for name in {name.lower() for name in row})
    return [next((label for label in row if owners[label.lower()] == 1), row[-1]) for row in names]


def _names(variant: Variant) -> tuple[str, ...]:
    """What a variant may be called, the shortest first; a later one tells more apart."""
    stem = variant.name.stem
    whole = f"{variant.folder}/{stem}".lstrip("/")
    return (variant.quant or stem, stem, whole, variant.files[0].path)


def _companions(
    files: Iterable[FileName], model: FileName, bases: set[str]
) -> tuple[FileName, ...]:
    """The projectors or drafts that may belong to a model.

    Narrowed step by step, each only where it leaves something: 1. not those named after another
    model of the repository; 2. those in the model's folder or above it (llama.cpp looks nowhere
    else); 3. those named after this model. Nearest folder first, then by path.
    """
    found = [file for file in files if file.base in ("", model.base) or file.base not in bases]
    found = [file for file in found if _is_above(file.folder, model.folder)] or found
    found = [file for file in found if file.base == model.base and model.base] or found
    return tuple(sorted(found, key=lambda file: (-len(file.folder), file.path)))


def _is_above(folder: str, other: str) -> bool:
    return not folder or f"{other}/".startswith(f"{folder}/")


def match_quant(wanted: str, variants: Sequence[Variant]) -> Variant:
    """The variant that `org/repo:WANTED` picks.

    Precedence, letters in any case; the first rule that finds anything decides:

    1. the very quantization: Q4_K_M is not UD-Q4_K_M, and F16 not BF16; fp16 is F16;
    2. the label, or the name of the file without its suffix and shard numbers, with or without
       the folder: how those of one quantization are told apart;
    3. another name of the same: Q4_K for Q4_K_M, MXFP4 for MXFP4_MOE and back;
    4. Unsloth's dynamic form: Q4_K_XL for UD-Q4_K_XL, never the other way round;
    5. the beginning of one: Q4 for the only Q4_…, UD for the only UD-…; not where WANTED is
       itself the name of a quantization (Q4_0 is not Q4_0_4_4).

    Of several found by one rule: 1. those that can be run before those that cannot; 2. of the
    same folder and stem the one in fewest files.

    Raises:
        UsageError: several are meant; they are listed.
        NotFoundError: none is; the nearest are named.
    """
    if not variants:
        raise NotFoundError("the repository has no GGUF model", "look for one that ends in -GGUF")
    text = wanted.upper()
    text = {"FP16": "F16", "FP32": "F32"}.get(text, text)
    synonyms = {ALIASES.get(text)} | {name for name, other in ALIASES.items() if other == text}
    begins = () if find_quant(text) and text not in _WIDTHS else (f"{text}_", f"{text}-")
    rules: tuple[Callable[[Variant], bool], ...] = (
        lambda v: _quant(v) == text,
        lambda v: text in {name.upper() for name in _names(v)},
        lambda v: _quant(v) in synonyms,
        lambda v: _quant(v) == f"UD-{text}",
        lambda v: _quant(v).startswith(begins),
    )
    for rule in rules:
        found = [variant for variant in variants if rule(variant)]
        found = [variant for variant in found if not variant.unusable] or found
        if len({(variant.folder, variant.name.stem) for variant in found}) == 1:
            return min(found, key=lambda variant: variant.n_shards)
        if found:
            raise UsageError(
                f"{wanted!r} may be any of {len(found)} models here",
                f"name one: {_list(found)}",
            )
    raise NotFoundError(
        f"there is no {wanted!r} here", f"the nearest: {_list(_nearest(text, variants))}"
    )


_WIDTHS = {"Q2", "Q3", "Q4", "Q5", "Q6", "Q8"}
_NEAREST = 4


def _quant(variant: Variant) -> str:
    return (variant.quant or "").upper()


def _nearest(wanted: str, variants: Sequence[Variant]) -> list[Variant]:
    """Up to four variants: the nearest in quality, or in spelling where the wish has no place."""
    order = quality_order(wanted)
    if order is not None:
        plain = wanted.removeprefix("UD-")
        ranked = [
            (variant.unusable is not None, _quant(variant) != plain, abs(place - order), no)
            for no, variant in enumerate(variants)
            if (place := quality_order(_quant(variant))) is not None
        ]
        if ranked:
            return [variants[no] for *_, no in sorted(ranked)[:_NEAREST]]
    by_label = {variant.label.upper(): variant for variant in variants}
    alike = difflib.get_close_matches(wanted, by_label, _NEAREST, 0.4)
    return [by_label[label] for label in alike] or list(variants[:_NEAREST])


def _list(variants: Iterable[Variant]) -> str:
    return ", ".join(f"{v.label} ({format_bytes(v.size_bytes)})" for v in variants)


def _numbers(numbers: Sequence[int]) -> str:
    """1, 2, 3 and so on, the first five."""
    shown = ", ".join(str(number) for number in numbers[:5])
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"
