"""Models to choose among, wherever they were found: values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from localllm.gguf import MemorySource
from localllm.hub.opened import Opened
from localllm.hub.source import Listing, Source
from localllm.plan import Candidate, Plan, Reason
from localllm.store import Manifest
from localllm.variants import Variant


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


def _stem(opened: Opened) -> str:
    return Path(opened.model.path).stem
