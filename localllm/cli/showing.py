"""`localllm show`: what is known of one model: where it came from, its header, its plan."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import finding, kept, prepare, references, render
from localllm.cli.found import FoundModels
from localllm.cli.listing import CHECKS
from localllm.cli.screen import harmless
from localllm.digests import Claim
from localllm.errors import LocalllmError, NotFoundError
from localllm.gguf import Array, Header, Value, parse_header
from localllm.hub import llamafile, localfile
from localllm.hub.opened import Opened
from localllm.hub.web import Web
from localllm.outline import vocabulary_size
from localllm.plan import Plan
from localllm.planner import Wishes
from localllm.readahead import ReadAhead
from localllm.store import Manifest, Store, StoredFile
from localllm.units import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

_TEMPLATE = "tokenizer.chat_template"
#: Elements of an array and letters of a text that are shown.
_N_ELEMENTS = 8
_N_LETTERS = 200


@dataclass(frozen=True)
class Shown:
    """A model, and all that is known of it.

    Attributes:
        found: the model, alone.
        manifest: of it, where it was pulled.
        plan: for this machine; None where it does not run here.
        refusal: then, why not.
    """

    found: FoundModels
    manifest: Manifest | None
    plan: Plan | None
    refusal: LocalllmError | None

    @property
    def opened(self) -> Opened:
        """What its headers tell."""
        return self.found.models[0]


def run(ref: str, *, template: bool, header: bool, offline: bool, as_json: bool) -> None:
    """Prints it.

    Raises:
        NotFoundError, NetworkError: it is nowhere to be found, or has no template.
        UsageError: several models may be meant. GgufError: its header is not sound.
    """
    shown = _shown(ref, references.make_web(offline=offline))
    whole = _whole_header(shown) if template or header else None
    text = whole.text(_TEMPLATE) if whole is not None and template else None
    if template and text is None:
        raise NotFoundError(f"{ref} has no chat template")
    if as_json:
        document = _document(shown)
        if template:
            document["chat_template"] = text
        if whole is not None and header:
            document["metadata"] = {key: _plain(value) for key, value in whole.metadata.items()}
        render.print_json(document)
    elif template:
        assert text is not None
        sys.stdout.write((harmless(text) if sys.stdout.isatty() else text) + "\n")
    else:
        _print(shown, whole)


def _shown(ref: str, web: Web) -> Shown:
    manifest = _manifest(ref)
    if manifest is not None:
        opened = finding.open_kept(manifest, kept.typed_name(manifest))
        found = FoundModels((opened,), kept=(manifest,))
    else:
        found = finding.find_models(kept.reference(ref), web)
    if found.note:
        render.say(found.note)
    try:
        plan = prepare.prepare(found, Wishes(mmproj=found.mmproj), "chat").plan
    except LocalllmError as refusal:
        return Shown(replace(found, models=found.models[:1]), manifest, None, refusal)
    chosen = tuple(each for each in found.models if each.model.path == plan.model.path)
    return Shown(replace(found, models=chosen), manifest, plan, None)


def _manifest(ref: str) -> Manifest | None:
    """Of the version that is meant, where it was pulled."""
    parsed = kept.reference(ref)
    if parsed.kind == "demo" or (parsed.kind == "file" and not finding.find_kept(parsed)):
        return None
    try:
        return kept.find_one(ref)
    except NotFoundError:
        return None


def _whole_header(shown: Shown) -> Header:
    """With the tokenizer's keys, from wherever the file is.

    Raises:
        NotFoundError: the file is out of reach, and these were not kept.
    """
    model, there = shown.opened.model, shown.found.there
    if there is None or there.source is None:
        if Path(model.path).exists():
            return localfile.read_header(Path(model.path))
        raise NotFoundError(
            f"of {model.ref} only an outline was kept, without its tokenizer and its template",
            "ask again when its source answers, or pull it",
        )
    file = there.variant_of(shown.opened).files[0]
    remote = there.source.remote(there.listing, file)
    is_archive = file.path.lower().endswith(".llamafile")
    return parse_header(ReadAhead(llamafile.open_member(remote) if is_archive else remote))


# -- as data ----------------------------------------------------------------------------------


def _document(shown: Shown) -> dict[str, Any]:
    manifest, plan = shown.manifest, shown.plan
    told = None
    if manifest is not None:
        files = [kept.file_document(file) for file in manifest.files]
        in_use = Store.here().current(manifest.name) == manifest
        told = {**kept.document(manifest), "in_use": in_use, "files": files}
    return {
        "schema_version": 1,
        "manifest": told,
        "header": _facts(shown.opened),
        "plan": plan.to_json() if plan is not None else None,
        "why_no_plan": shown.refusal.message if shown.refusal is not None else None,
    }


def _facts(opened: Opened) -> dict[str, Any]:
    """What the headers say, of all parts of a split model together."""
    headers = [parse_header(each) for each in opened.outlines]
    first, model = headers[0], opened.model
    n_by_type: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            n_by_type[tensor.type.name] += tensor.n_elements
    n_parameters = sum(n_by_type.values())
    arch = model.architecture
    return {
        "name": model.name,
        "architecture": arch,
        "n_parameters": n_parameters,
        "n_layers": model.n_layers,
        "n_ctx_train": model.n_ctx_train,
        "n_embd": first.integer(f"{arch}.embedding_length"),
        "n_head": _plain(first.metadata.get(f"{arch}.attention.head_count")),
        "n_head_kv": _plain(first.metadata.get(f"{arch}.attention.head_count_kv")),
        "n_expert": first.integer(f"{arch}.expert_count"),
        "n_expert_used": first.integer(f"{arch}.expert_used_count"),
        "n_vocab": vocabulary_size(first),
        "quant": model.quant,
        "weights_by_type": {
            kind: round(n / n_parameters, 4) for kind, n in n_by_type.most_common()
        },
        "licence": first.text("general.license"),
        "has_chat_template": model.has_chat_template,
        "is_generative": model.is_generative,
    }


def _plain(value: Value | None) -> Any:
    """A value of a header for JSON, which has no NaN; of a long array its length."""
    if isinstance(value, Array):
        if value.values is None:
            return {"n_elements": value.n_elements}
        return [_plain(each) for each in value.values]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# -- for a person -----------------------------------------------------------------------------


def _print(shown: Shown, whole: Header | None) -> None:
    from rich.text import Text

    out = kept.table_console()
    if shown.manifest is not None:
        out.print(Text(kept.typed_version(shown.manifest), "bold"))
        out.print(_manifest_table(shown.manifest))
        out.print()
    out.print(_facts_table(shown.opened))
    out.print()
    if whole is not None:
        out.print(_keys_table(whole))
        out.print()
    if shown.plan is not None:
        render.print_plan(shown.plan, sys.stdout)
    elif shown.refusal is not None:
        out.print(Text(f"It does not run here: {shown.refusal.message}.", "yellow"))
        if shown.refusal.hint:
            out.print(Text(f"hint: {shown.refusal.hint}"))


def _grid() -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _manifest_table(manifest: Manifest) -> Table:
    from rich.text import Text

    table = _grid()
    current = Store.here().current(manifest.name)
    is_current = current is not None and current.revision == manifest.revision
    in_use = "" if is_current else f"; in use is {kept.short(current.revision)}" if current else ""
    asked = f", which was {manifest.asked}" if manifest.asked else ""
    table.add_row("source", f"{manifest.repo} on {manifest.authority}")
    table.add_row("revision", f"{manifest.revision}{asked}{in_use}")
    table.add_row("pulled", manifest.pulled_at)
    for file in manifest.files:
        for at, line in enumerate(_file_lines(file)):
            table.add_row("" if at else file.role, Text(line))
    checks = (f"{name} {manifest.verified.get(name, 'not passed')}" for name in CHECKS)
    table.add_row("checked", Text("\n".join(checks)))
    return table


def _file_lines(file: StoredFile) -> list[str]:
    lines = [f"{render.home_shortened(file.location)} ({format_bytes(file.size_bytes)})"]
    said = {(claim.algorithm, claim.hex): claim for claim in file.proofs}
    for algorithm, digest in file.digests.items():
        lines.append(f"{algorithm} {digest}{_word(said.get((algorithm, digest)))}")
    for claim in file.archive_proofs:
        lines.append(f"its llamafile: {claim.algorithm} {claim.hex}{_word(claim)}")
    if not file.proofs and not file.archive_proofs:
        lines.append("nobody but this machine has said what its digest must be")
    if file.adopted is not None:
        lines.append(f"it is {file.adopted}'s file" + ("" if file.in_place else ", linked"))
    return lines


def _word(claim: Claim | None) -> str:
    if claim is None:
        return ""
    proves = "its origin" if claim.proves == "origin" else "the transfer alone"
    return f", as {claim.by} said, which proves {proves}"


def _facts_table(opened: Opened) -> Table:
    from rich.text import Text

    told = _facts(opened)
    table = _grid()

    def row(what: str, value: object) -> None:
        if value is not None:
            table.add_row(what, Text(harmless(str(value))))

    row("model", f"{told['name']}, architecture {told['architecture']}")
    row("parameters", _count(told["n_parameters"]))
    experts = told["n_expert"] and f", {told['n_expert_used']} of {told['n_expert']} experts used"
    row("layers", f"{told['n_layers']}{experts or ''}")
    row("context", told["n_ctx_train"] and f"{told['n_ctx_train']:,} tokens in training")
    row("heads", _heads(told["n_head"], told["n_head_kv"]))
    row("vocabulary", told["n_vocab"] and f"{told['n_vocab']:,} tokens")
    row("quant", told["quant"])
    row("weights", ", ".join(f"{s:.1%} {kind}" for kind, s in told["weights_by_type"].items()))
    row("licence", told["licence"] or "not said")
    row("template", "yes: --template prints it" if told["has_chat_template"] else "none")
    return table


def _heads(n_head: Any, n_head_kv: Any) -> str | None:
    if n_head is None:
        return None
    words = _span(n_head)
    return words if n_head_kv is None else f"{words}, {_span(n_head_kv)} of keys and values"


def _span(n_heads: Any) -> str:
    """As in "8", or of layers that differ "0 to 8"."""
    if not isinstance(n_heads, list):
        return str(n_heads)
    return f"{min(n_heads)} to {max(n_heads)}"


def _count(n: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if n >= unit:
            return f"{n / unit:.3g} {name}"
    return str(n)


def _keys_table(header: Header) -> Table:
    from rich.text import Text

    table = _grid()
    for key, value in header.metadata.items():
        table.add_row(Text(harmless(key)), Text(_shortened(value)))
    return table


def _shortened(value: Value) -> str:
    if not isinstance(value, Array):
        return _shortened_text(value)
    first: Sequence[Any] = (value.values or ())[:_N_ELEMENTS]
    items = ", ".join(map(_shortened_text, first))
    if len(first) == value.n_elements:
        return f"[{items}]"
    return f"[{items}, …] of {value.n_elements:,}" if items else f"[…] of {value.n_elements:,}"


def _shortened_text(value: Any) -> str:
    """On one line, as JSON spells it."""
    text = harmless(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _N_LETTERS else f"{text[:_N_LETTERS]}… ({len(text):,} letters)"
