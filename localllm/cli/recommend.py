"""`localllm recommend`: what runs best here, from the catalogue; and the question which to pull."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import IO, Any, cast, get_args

from localllm import paths
from localllm.catalogue import Task, load_catalogue
from localllm.cli import asking, finding, prepare, references, render
from localllm.cli.simulation import Simulation
from localllm.errors import DoesNotFitError, LocalllmError, NetworkError, NotFoundError, UsageError
from localllm.hub.web import Web
from localllm.plan import Plan
from localllm.planner import Wishes
from localllm.profiles import Policy, load_policy
from localllm.recommendation import Suggestion, rank, shortlist
from localllm.units import format_bytes

#: Shown, and for these the hub is asked for headers: some 8 MB for each that was never looked at.
_N_SHOWN = 5
#: Where exact plans push models down, others move up and are asked for as well, up to so many.
_N_ASKED = 10


@dataclass(frozen=True)
class Recommended:
    """The ranking, and what kept figures from being exact."""

    suggestions: tuple[Suggestion, ...]
    note: str | None = None


def run(*, goal: str, task: str | None, machine: Simulation, offline: bool, as_json: bool) -> None:
    """Prints the ranking.

    Raises:
        UsageError: no such goal or task. DoesNotFitError: nothing in the catalogue fits.
    """
    found = recommend(goal, task, machine, references.make_web(offline=offline))
    if found.note is not None:
        render.say(found.note)
    if as_json:
        told = [_told(suggestion) for suggestion in found.suggestions]
        render.print_json({"schema_version": 1, "goal": goal, "suggestions": told})
    else:
        show(found, sys.stdout)


def choose(goal: str, *, offline: bool) -> str:
    """Lets the person choose; returns the alias.

    Raises:
        UsageError: there is nobody to ask. KeyboardInterrupt: they want none.
    """
    if not asking.can_ask():
        raise UsageError("missing argument 'MODEL'", "localllm recommend shows what runs best here")
    found = recommend(goal, None, Simulation(), references.make_web(offline=offline))
    if found.note is not None:
        render.say(found.note)
    show(found, sys.stderr)
    shown = found.suggestions[:_N_SHOWN]
    while True:
        word = asking.ask(f"Which? [1-{len(shown)}, Enter for 1, q for none]")
        if word in (None, "q", "n", "no"):
            raise KeyboardInterrupt
        if not word:
            return shown[0].entry.alias
        if word.isdecimal() and 1 <= int(word) <= len(shown):
            return shown[int(word) - 1].entry.alias
        aliases = [each.entry.alias for each in shown]
        if word in aliases:
            return word


def recommend(goal: str, task: str | None, machine: Simulation, web: Web) -> Recommended:
    """The models that run best, those that are shown planned from their own headers.

    Raises:
        UsageError: no such goal or task. DoesNotFitError: nothing in the catalogue fits.
    """
    from localllm.engine.dryrun import dry_run

    if task is not None and task not in get_args(Task):
        raise UsageError(f"{task!r} is no task", f"one of {', '.join(get_args(Task))}")
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    aim = policy.goal(goal)
    catalogue = load_catalogue(paths.shipped_profiles_dir(), paths.config_dir())
    with contextlib.ExitStack() as stack:
        hardware = prepare.machine(machine)
        asks_llama_cpp = stack.enter_context(dry_run({}))
        oracle = prepare.stood_in(stack, asks_llama_cpp, hardware, machine)
        devices = oracle.devices() if oracle is not None and hardware.accelerators else ()
    listed = shortlist(catalogue, hardware, devices, policy, aim, cast("Task | None", task))
    if not listed:
        raise DoesNotFitError(
            "nothing in the catalogue fits this machine's free memory",
            "localllm doctor shows what there is; the demo always runs: localllm chat demo",
        )
    return _made_exact(listed, goal, machine, policy, web)


def _made_exact(
    listed: tuple[Suggestion, ...], goal: str, machine: Simulation, policy: Policy, web: Web
) -> Recommended:
    exact: dict[str, Plan | None] = {}
    unasked: set[str] = set()
    note = None
    ranked = listed
    while len(exact) + len(unasked) < _N_ASKED:
        done = exact.keys() | unasked
        due = [s.entry.alias for s in ranked[:_N_SHOWN] if s.entry.alias not in done]
        if not due:
            break
        alias = due[0]
        if sys.stderr.isatty():
            render.say(f"looking at the header of {alias}")
        try:
            found = finding.find_models(alias, web)
            exact[alias] = prepare.prepare(found, Wishes(), goal, machine).plan
        except DoesNotFitError:
            exact[alias] = None
        except NotFoundError as error:  # the catalogue is older than the hub
            note = f"{alias}: {error.message}"
            exact[alias] = None
        except NetworkError as error:
            note = f"{error.message}; figures of what was never looked at are estimates"
            unasked.update(due if not web.offline else [alias])
        except LocalllmError as error:
            note = f"{alias}: {error.message}"
            unasked.add(alias)
        ranked = rank(listed, exact, policy, policy.goal(goal))
    return Recommended(ranked, note)


def show(found: Recommended, stream: IO[str]) -> None:
    """The first few, each with why it stands where it stands."""
    from rich.text import Text

    out = render.console(stream)
    shown = found.suggestions[:_N_SHOWN]
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, shown), strict=True)]
    for number, each in enumerate(shown, 1):
        cells = [cell.ljust(width) for cell, width in zip(_cells(each), widths, strict=True)]
        style = "bold" if number == 1 else "" if each.is_usable else "dim"
        out.print(Text(f"{number}  {'  '.join(cells).rstrip()}", style))
        gated = "; asks for consent before a download" if each.entry.gated else ""
        out.print(Text(f"   {each.because}; {each.where}; {each.figures}{gated}", "dim"))
    out.print()
    out.print(Text(f"localllm pull {shown[0].entry.alias}", "dim"))


def _cells(each: Suggestion) -> tuple[str, ...]:
    return (
        each.entry.alias,
        each.quant,
        format_bytes(each.size_bytes),
        f"context {each.n_ctx:,}",
        f"{render.speed_text(each.tokens_per_second)} tokens/s",
    )


def _told(suggestion: Suggestion) -> dict[str, Any]:
    entry = suggestion.entry
    return {
        "model": entry.alias,
        "repo": entry.repo,
        "description": entry.description,
        "licence": entry.licence,
        "gated": entry.gated,
        "tasks": list(entry.tasks),
        "quant": suggestion.quant,
        "size_bytes": suggestion.size_bytes,
        "n_ctx": suggestion.n_ctx,
        "where": suggestion.where,
        "tokens_per_second": round(suggestion.tokens_per_second, 2),
        "usable": suggestion.is_usable,
        "figures": suggestion.figures,
        "because": suggestion.because,
        "price": round(suggestion.price, 3),
    }
