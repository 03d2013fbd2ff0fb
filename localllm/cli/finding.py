"""What a reference names: the demo, a file, a folder of quantizations, or what was seen before."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from localllm import demo, paths
from localllm.errors import DiskError, NotFoundError
from localllm.gguf import parse_header
from localllm.hub import known, localfile
from localllm.hub.localfile import Opened
from localllm.naming import ModelRef, parse_ref
from localllm.plan import Candidate, Plan, Reason
from localllm.weights import read_weights


@dataclass(frozen=True)
class FoundModels:
    """Models to choose among.

    Attributes:
        models: quantizations of one model.
        quant: the one that the reference itself asks for.
        seen: when they were looked at, seconds since 1970; None for now.
    """

    models: tuple[Opened, ...]
    quant: str | None = None
    seen: float | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """Each under a name of its own: the quantization, or where that is not enough the file."""
        labels = [opened.model.quant or Path(opened.model.path).stem for opened in self.models]
        return [
            Candidate(
                label if labels.count(label) == 1 else Path(opened.model.path).stem,
                opened.model,
                opened.weights,
                opened.unusable,
            )
            for label, opened in zip(labels, self.models, strict=True)
        ]

    def told(self, plan: Plan) -> Plan:
        """The plan, saying first that its model is not here, if that is so."""
        if self.seen is None:
            return plan
        day = time.strftime("%Y-%m-%d", time.localtime(self.seen))
        because = f"not here now: planned from its header as it was on {day}"
        reason = Reason("model", plan.model.path, because, "measured")
        return replace(plan, reasons=(reason, *plan.reasons))


def find_models(ref: str, *, from_memory: bool = False) -> FoundModels:
    """Reads the headers of what the reference names.

    Args:
        ref: what the person typed.
        from_memory: what was looked at before will do where the model is not to be had, and
            what is looked at now is remembered.

    Raises:
        NotFoundError: no such file, a missing shard, or a name that is not on this disk.
        GgufError, AccessError, UsageError: see `localfile.open_model`.
    """
    parsed = parse_ref(ref)
    if parsed.kind == "demo":
        return FoundModels((localfile.open_model(demo.model_path(), ref, "demo"),))
    if parsed.kind == "file":
        path = _expanded(ref)
        key = f"file:{path.absolute()}"
        try:
            if path.is_dir():
                found = tuple(localfile.open_folder(path, ref))
            else:
                found = (localfile.open_model(path, ref, "file"),)
        except NotFoundError:
            remembered = _recall(key) if from_memory else None
            if remembered is None:
                raise
            return remembered
        if from_memory:
            _remember(key, found)
        return FoundModels(found)
    if Path(ref).is_dir():
        raise NotFoundError(f"there is no model called {ref!r}", f"for the folder, write ./{ref}")
    if Path(ref).is_file():
        raise NotFoundError(f"there is no model called {ref!r}", f"for the file, write ./{ref}")
    remembered = _recall(_hub_key(parsed)) if from_memory and parsed.repo else None
    if remembered is not None:
        return replace(remembered, quant=parsed.quant)
    raise _not_here(parsed)


def _hub_key(parsed: ModelRef) -> str:
    return f"{parsed.kind}:{parsed.repo}@{parsed.revision or 'main'}"


def _recall(key: str) -> FoundModels | None:
    seen = known.recall(key)
    if seen is None or not seen.files:
        return None
    models = tuple(
        Opened(
            file.model,
            read_weights([parse_header(outline) for outline in file.outlines]),
            file.outlines,
        )
        for file in seen.files
    )
    return FoundModels(models, seen=seen.when)


def _remember(key: str, found: tuple[Opened, ...]) -> None:
    files = tuple(
        known.KnownFile(
            path=opened.model.path,
            size_bytes=opened.model.size_bytes,
            sha256=opened.model.sha256,
            model=opened.model,
            outlines=opened.outlines,
        )
        for opened in found
        if not opened.unusable
    )
    seen = known.recall(key)
    if seen is not None and seen.files == files:
        return  # which is most of the time, and reading is quicker than writing
    with contextlib.suppress(DiskError):  # a full disk is no reason not to plan
        known.remember(key, None, files)


def _not_here(parsed: ModelRef) -> NotFoundError:
    ref = parsed.text
    if parsed.kind == "alias":
        from localllm.catalogue import load_catalogue

        entry = load_catalogue(paths.shipped_profiles_dir(), paths.config_dir()).find(ref)
        return NotFoundError(
            f"{ref!r} is {entry.repo} on the hub, which is not on this disk, and this version of"
            " localllm cannot download yet",
            f"download a .gguf file from {entry.source} and name the path,"
            " or try: localllm chat demo",
        )
    return NotFoundError(
        f"{ref!r} is not on this disk, and this version of localllm cannot download yet",
        "download its .gguf file and name the path, or try: localllm chat demo",
    )


def _expanded(ref: str) -> Path:
    try:
        return Path(ref).expanduser()
    except RuntimeError:  # ~nobody-knows/x
        raise NotFoundError(f"{ref!r} begins with an unknown user's home", "write it out") from None
