"""`localllm doctor --network REF`: the way to a model as a person reads it, hop by hop."""

from __future__ import annotations

import sys
from typing import Any

from localllm import __version__
from localllm.cli import references, render
from localllm.errors import UsageError
from localllm.hub.hop import Hop
from localllm.hub.reach import exit_code, probe_reach
from localllm.units import format_seconds

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}
#: Columns of a pipe, in which a line is one line.
_ENDLESS = 10_000


def run(ref: str, *, as_json: bool) -> int:
    """Prints the hops to a model, each as it is gone.

    Args:
        ref: a repository, an alias or a URL, as the person typed it.
        as_json: one document at the end instead.

    Returns:
        The exit status: 0 all well, 1 with a warning, 4 where access is refused, 5 where a hop
        fails.

    Raises:
        UsageError: it is nowhere on the network. NotFoundError: an unknown alias.
    """
    parsed = references.resolve(ref)
    if parsed.kind not in ("hf", "ms", "url"):
        raise UsageError(f"{ref!r} is not on the network", "name it as org/repo, or a URL")
    hops = []
    for hop in probe_reach(parsed, references.make_web()):
        hops.append(hop)
        if not as_json:
            _print(hop)
    findings = [hop.finding for hop in hops if hop.finding is not None]
    if as_json:
        document = {
            "schema_version": 1,
            "localllm": __version__,
            "hops": [_to_json(hop) for hop in hops],
            "findings": [vars(each) for each in findings],
        }
        render.print_json(document)
    return exit_code(findings)


def _to_json(hop: Hop) -> dict[str, Any]:
    return {
        "hop": hop.name,
        "host": hop.host,
        "proxy": hop.proxy,
        "status": hop.status,
        "seconds": hop.seconds,
        "level": hop.finding.level if hop.finding else "not-reached",
        "facts": dict(hop.facts),
    }


def _print(hop: Hop) -> None:
    from rich.table import Table
    from rich.text import Text

    out = render.console(sys.stdout)
    if not out.is_terminal:
        out.width = _ENDLESS
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=4)
    table.add_column(width=10)
    table.add_column(width=6, justify="right")
    table.add_column()
    if hop.finding is None:
        table.add_row("", hop.name, "", "not reached", style="dim")
    else:
        code = (f"  {hop.finding.code}", "dim")
        said = Text.assemble(*_where(hop), hop.finding.message, code)
        took = format_seconds(hop.seconds) if hop.seconds is not None else ""
        table.add_row(Text(*_MARKS[hop.finding.level]), hop.name, took, said)
        if hop.finding.fix:
            table.add_row("", "", "", Text(hop.finding.fix, style="bold"))
    out.print(table)


def _where(hop: Hop) -> list[str]:
    """Who answered an HTTP request, and with what; the other hops name their host themselves."""
    if hop.status is None or hop.host is None:
        return []
    return [f"{hop.host} {hop.status}: "]
