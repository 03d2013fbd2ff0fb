"""Plans, hardware and findings as a person reads them, on a terminal or in a pipe."""

from __future__ import annotations

import json
import os
import sys
from typing import IO, TYPE_CHECKING, Any

from localllm.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from localllm.plan import Plan


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


def say(text: str) -> None:
    """A line of progress on standard error."""
    sys.stderr.write(f"localllm: {text}\n")
    sys.stderr.flush()


def print_plan(plan: Plan, stream: IO[str]) -> None:
    """The plan: what, where, why, and the command that would run."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from localllm.engine.argv import printable, server_argv

    out = console(stream)
    model = plan.model
    parts = [model.architecture or "?", model.quant or "?", format_bytes(model.size_bytes)]
    out.print(Text.assemble((model.name or model.ref, "bold"), "  ", " · ".join(parts)))
    out.print(Text(model.path, style="dim"), soft_wrap=True)

    if plan.memory:
        ledger = Table(box=None, pad_edge=False, padding=(0, 2))
        for heading in ("memory", "model", "context", "compute", "engine", "total", "free"):
            ledger.add_column(heading, justify="left" if heading == "memory" else "right")
        for row in plan.memory:
            sizes = (
                row.model_bytes,
                row.context_bytes,
                row.compute_bytes,
                row.overhead_bytes,
                row.total_bytes,
                row.free_bytes,
            )
            ledger.add_row(row.device, *(format_bytes(size) for size in sizes))
        out.print()
        out.print(Padding(ledger, (0, 0, 0, 2)))

    why = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    why.add_column(no_wrap=True)
    why.add_column(justify="right", no_wrap=True)
    why.add_column(style="dim")
    for reason in plan.reasons:
        why.add_row(
            reason.field,
            _value(reason.field, reason.value),
            f"{reason.because} ({reason.source})",
        )
    out.print()
    out.print(Padding(why, (0, 0, 0, 2)))
    out.print()
    environment = " ".join(f"{name}={value}" for name, value in plan.env.items())
    out.print(Text(f"  {environment} {printable(server_argv(plan))}", style="dim"), soft_wrap=True)


def _value(field: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if field.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def home_shortened(path: str) -> str:
    """A path with the home folder as ~."""
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if len(home) > 1 and path.startswith(home + os.sep) else path
