"""Whether models that are here would run right now: the planner's word on all of them at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from localllm import paths
from localllm.cli import finding, kept, prepare
from localllm.cli.found import FoundModels
from localllm.cli.learning import Teacher
from localllm.cli.simulation import Simulation
from localllm.errors import LocalllmError
from localllm.hardware import Hardware
from localllm.hub.opened import Opened
from localllm.planner import Planning, Wishes
from localllm.planner.search import Outcome
from localllm.profiles import load_policy
from localllm.store import Manifest
from localllm.units import format_bytes


@dataclass(frozen=True)
class Fit:
    """Whether a model would run now.

    Attributes:
        fits: None where nothing here can tell.
        n_ctx: the context that it would have, tokens.
        why_not: a few words.
    """

    fits: bool | None
    n_ctx: int | None = None
    why_not: str | None = None

    @property
    def words(self) -> str:
        """In a table."""
        if self.fits:
            return f"yes, {self.n_ctx:,} tokens"
        return f"{'no' if self.fits is False else 'unknown'}: {self.why_not}"


def fits_now(manifests: Sequence[Manifest]) -> list[Fit]:
    """Each by itself, for a chat, by what llama.cpp says of outlines; one child answers for all."""
    from localllm.engine.dryrun import dry_run

    opened = [_opened(each) for each in manifests]
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    hardware = prepare.machine(Simulation())
    teacher = Teacher.here(hardware)
    outlines = {each.model.path: each.outlines for each in opened if isinstance(each, Opened)}
    fits = []
    with dry_run(outlines) as oracle:
        for manifest, each in zip(manifests, opened, strict=True):
            if not isinstance(each, Opened):
                fits.append(Fit(False, why_not=each))
                continue
            if oracle is None:
                fits.append(Fit(None, why_not="there is no engine to ask"))
                continue
            found = FoundModels((each,), kept=(manifest,))
            candidates = found.candidates
            extra_bytes = teacher.extra_bytes(candidates)
            planning = Planning(candidates, policy, policy.goal("chat"), oracle, extra_bytes)
            try:
                fits.append(_fit(_outcome(planning, hardware, found.mmproj)))
            except LocalllmError as error:
                fits.append(Fit(None, why_not=error.message))
    return fits


def _opened(manifest: Manifest) -> Opened | str:
    """Its outlines, or why there are none."""
    for file in manifest.files:
        try:
            changed = os.stat(file.location).st_size != file.size_bytes
        except OSError:
            return f"{file.path} is gone"
        if changed:
            return f"{file.path} is damaged"
    ref = kept.typed_name(manifest)
    try:
        return finding.recall_kept(manifest, ref) or finding.open_kept(manifest, ref)
    except LocalllmError as error:
        return error.message


def _outcome(planning: Planning, hardware: Hardware, mmproj: str | None) -> Outcome:
    """What the one candidate comes to.

    A smaller KV cache is asked about only where the usual one leaves less context than is wished
    for: that is three more questions of seven.
    """
    (outcome,), search, _ = planning.outcomes(hardware, Wishes(type_k="f16", mmproj=mmproj))
    found = outcome.found
    if found is None or found.option.plan.n_ctx < search.n_ctx_wished:
        (outcome,), _, _ = planning.outcomes(hardware, Wishes(mmproj=mmproj))
    return outcome


def _fit(outcome: Outcome) -> Fit:
    if outcome.found is not None:
        return Fit(True, outcome.found.option.plan.n_ctx)
    if outcome.refused is not None:
        return Fit(False, why_not=outcome.refused.message)
    assert outcome.nearest is not None
    _, shortfall = outcome.nearest
    missing = format_bytes(-shortfall.left_bytes)
    return Fit(False, why_not=f"{missing} short on {shortfall.row.device}")
