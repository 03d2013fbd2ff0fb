"""The commands about running servers: their names and flags. What they do is in other files."""

from __future__ import annotations

from typing import Annotated

import typer

from localllm.cli.flags import Json

Name = Annotated[
    str | None,
    typer.Argument(help="As localllm ps shows it; not needed where one runs.", show_default=False),
]


def ps(json: Json = False) -> None:
    """Which servers run, and what they do."""
    from localllm.cli import processes

    processes.run_ps(as_json=json)


def stop(
    name: Name = None,
    every: Annotated[bool, typer.Option("--all", help="Every server that runs.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for its requests.")] = False,
) -> None:
    """Stop a server: it finishes what it has begun, takes nothing new, and ends.

    Leaves with 1 when it has not ended in the time that it gives its requests.
    """
    from localllm.cli import processes

    processes.run_stop(name, every=every, now=now)


def logs(
    name: Name = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
    access: Annotated[
        bool, typer.Option("--access", help="A line for each request; the default.")
    ] = False,
    error: Annotated[bool, typer.Option("--error", help="What went wrong.")] = False,
    performance: Annotated[
        bool, typer.Option("--performance", help="Percentiles and memory, every few seconds.")
    ] = False,
    engine: Annotated[bool, typer.Option("--engine", help="What its llama-servers print.")] = False,
    n_lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="The lines as they are, on a terminal as well.")
    ] = False,
) -> None:
    """Show a server's logs: a short line each, or in a pipe the JSON lines as they are.

    Those of a server that has stopped are there as well, by its name.
    """
    from localllm.cli import tailing

    chosen = [
        kind
        for kind, is_asked in (
            ("access", access), ("error", error), ("performance", performance), ("engine", engine),
        )
        if is_asked
    ]  # fmt: skip
    tailing.run(name, chosen, n_lines=n_lines, follow=follow, raw=json)


def top(
    name: Name = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and leave.")] = False,
    json: Json = False,
) -> None:
    """Watch a server live: its replicas, queue, speed, memory and last errors. q leaves."""
    from localllm.cli import top

    top.run(name, once=once, as_json=json)


COMMANDS = (
    ps,
    stop,
    logs,
    top,
)
