"""Plans, hardware and findings as a person reads them, on a terminal or in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import IO, TYPE_CHECKING, Any, Literal

from localllm.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from localllm.plan import Plan, Speed, Verdict


def console(stream: IO[str]) -> Console:
    """A rich console on the stream, which honours NO_COLOR and TERM=dumb by itself.

    In a pipe there is no width to keep to: 100 columns, and no wrapping surprises in logs.
    """
    from rich.console import Console

    width = None if stream.isatty() else 100
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def print_json(document: dict[str, Any]) -> None:
    """One document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def say(text: str, who: str = "localllm") -> None:
    """A line of progress on standard error.

    Where that is gone (the terminal was closed: EIO), nobody is told, and the work goes on.

    Args:
        text: a sentence.
        who: says it.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{who}: {text}\n")
        sys.stderr.flush()


#: What a person wants to know first; the rest is for --explain.
_FIRST = (
    "hardware", "ram_bytes", "vram_bytes", "quant", "n_ctx", "n_parallel", "type_k", "n_gpu_layers",
    "devices", "tensor_split", "tensor_overrides", "n_threads", "memory",
)  # fmt: skip


def print_plan(plan: Plan, stream: IO[str], *, explain: bool = False, command: bool = True) -> None:
    """The plan: what, where, why, and the command that would run.

    Args:
        plan: what to print.
        stream: where.
        explain: every value with its reason, and every byte with its source.
        command: the command that would run as well.
    """
    from rich.padding import Padding
    from rich.text import Text

    from localllm.engine.argv import printable, server_argv

    out = console(stream)
    model = plan.model
    parts = [model.architecture or "?", model.quant or "?", format_bytes(model.size_bytes)]
    out.print(Text.assemble((model.name or model.ref, "bold"), "  ", " · ".join(parts)))
    out.print(Text(model.path, style="dim"), soft_wrap=True)
    speed = speed_words(plan.speed)
    if speed:
        out.print(Text(speed))
    wide = out.width >= _WIDE
    tables = [_candidates(plan, wide=wide, explain=explain)] if len(plan.verdicts) > 1 else []
    if plan.memory:
        tables.append(_ledger(plan))
    if plan.memory and explain:
        tables.append(_sources(plan))
    tables.append(_reasons(plan, explain=explain))
    for table in tables:
        out.print()
        out.print(Padding(table, (0, 0, 0, 2)))
    out.print()
    if not command:
        return
    environment = " ".join(f"{name}={value}" for name, value in plan.env.items())
    out.print(Text(f"  {environment} {printable(server_argv(plan))}", style="dim"), soft_wrap=True)


def print_hint(text: str, stream: IO[str]) -> None:
    """A line for whoever wants to know more."""
    from rich.text import Text

    console(stream).print(Text(f"  {text}", style="dim"))


def speed_words(speed: Speed) -> str:
    """As in "about 14 tokens a second, prompts about 120 (estimated, 40% either way)".

    Empty where nothing is known.
    """
    if speed.decode_tokens_per_second is None:
        return ""
    about = "" if speed.source == "measured" else "about "
    text = f"{about}{speed_text(speed.decode_tokens_per_second)} tokens a second"
    if speed.prompt_tokens_per_second is not None:
        text += f", prompts {about}{speed_text(speed.prompt_tokens_per_second)}"
    error = f", {speed.error:.0%} either way" if speed.error else ""
    return f"{text} ({speed.source}{error})"


def speed_text(tokens_per_second: float) -> str:
    """Tokens per second, as exactly as such figures are known."""
    if tokens_per_second >= 100:
        return f"{round(tokens_per_second, -1 if tokens_per_second < 1000 else -2):.0f}"
    return f"{tokens_per_second:.2g}"


def make_table(*headings: str, left: tuple[str, ...] = ()) -> Table:
    """A table without lines: numbers to the right, the headings in `left` to the left."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=bool(headings))
    for heading in headings:
        folds = heading in ("why not", "because")
        justify: Literal["left", "right"] = "left" if heading in left else "right"
        table.add_column(heading, justify=justify, no_wrap=not folds)
    return table


#: Columns from which there is room for why a candidate was not chosen.
_WIDE = 96


def _candidates(plan: Plan, *, wide: bool, explain: bool) -> Table:
    """All quantizations, the chosen one marked; why not each other, where there is room.

    The price is the sum of what a plan concedes, in percent of perplexity (docs/decisions/0009).
    """
    price = ("price",) if explain else ()
    headings = ("", "quant", "size", "context", "KV", "tok/s", "loss", *price, "where")
    table = make_table(
        *headings, *(("why not",) if wide else ()), left=("", "quant", "where", "why not")
    )
    for verdict in plan.verdicts:
        chosen = verdict.fits and verdict.why_not is None
        speed = verdict.decode_tokens_per_second
        table.add_row(
            "→" if chosen else "",
            verdict.quant,
            format_bytes(verdict.size_bytes),
            f"{verdict.n_ctx:,}" if verdict.n_ctx else "",
            verdict.type_k or "",
            "" if speed is None else speed_text(speed),
            "" if verdict.quality_loss is None else f"{verdict.quality_loss:.1%}",
            *((f"{verdict.price:.2f}" if verdict.price is not None else "",) if explain else ()),
            *_where(verdict, wide=wide),
            style="bold" if chosen else "" if verdict.fits else "dim",
        )
    return table


def _where(verdict: Verdict, *, wide: bool) -> tuple[str, ...]:
    if wide:
        return verdict.where, verdict.why_not or ""
    return (verdict.where or verdict.why_not or "",)


def _ledger(plan: Plan) -> Table:
    """Bytes by device."""
    table = make_table(
        "memory", "model", "context", "compute", "engine", "total", "free", "reserve",
        left=("memory",),
    )  # fmt: skip
    for row in plan.memory:
        sizes = (
            row.model_bytes,
            row.context_bytes,
            row.compute_bytes,
            row.overhead_bytes,
            row.total_bytes,
            row.free_bytes,
            row.reserve_bytes,
        )
        table.add_row(row.device, *(format_bytes(size) for size in sizes))
    return table


def _sources(plan: Plan) -> Table:
    """Every line of the ledger, and how it is known."""
    table = make_table("ledger", "", "bytes", "because", left=("ledger", "", "because"))
    for row in plan.memory:
        for line in row.lines:
            told = f"{line.because} ({line.source})"
            table.add_row(row.device, line.what, format_bytes(line.n_bytes), told)
    return table


def _reasons(plan: Plan, *, explain: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, max_width=32, overflow="ellipsis")
    table.add_column(style="dim")
    for reason in plan.reasons:
        if explain or reason.field in _FIRST:
            value = _value(reason.field, reason.value)
            table.add_row(reason.field, value, f"{reason.because} ({reason.source})")
    return table


def _value(field: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if field.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, list):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def home_shortened(path: str) -> str:
    """A path with the home folder as ~."""
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if len(home) > 1 and path.startswith(home + os.sep) else path
