"""The commands' names and flags, and the one place where errors become a sentence and a status.

What a command does is in the file of its name; those are loaded only when the command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from localllm import __version__
from localllm.cli import models, servers
from localllm.cli.flags import (
    Ctx,
    Goal,
    Hw,
    Json,
    Kv,
    Mmproj,
    Model,
    Ngl,
    Offline,
    Parallel,
    Prefer,
    Quant,
    Ram,
    Threads,
    Vram,
)
from localllm.errors import INTERRUPTED_EXIT_CODE, LocalllmError, UsageError

app = typer.Typer(
    name="localllm",
    help="Runs GGUF models on llama.cpp, tuned to this machine.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich would double the time of --help, and adds only boxes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
engine_app = typer.Typer(help="The engine: llama.cpp with its native tools.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")
for command in (*models.COMMANDS, *servers.COMMANDS):
    app.command()(command)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="With any command: show tracebacks and engine logs.")
    ] = False,
) -> None:
    """Runs GGUF models on llama.cpp, tuned to this machine."""
    if version:
        typer.echo(f"localllm {__version__}")
        raise typer.Exit


@app.command()
def doctor(
    json: Json = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write a redacted report to attach to a bug.")
    ] = False,
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="REF", help="Look at the way to this model instead."),
    ] = None,
) -> None:
    """Look at this machine and its engine, and say what is wrong.

    Each finding comes with the line that mends it. Leaves with 0 when all is well, 1 with a
    warning, 9 with a failure; of the network 5, or 4 where access is refused.
    """
    if network is not None:
        from localllm.cli import network as way

        if report:
            raise UsageError("--report is of this machine, --network of the way to a model")
        raise typer.Exit(way.run(network, as_json=json))
    from localllm.cli import doctor

    raise typer.Exit(doctor.run(as_json=json, report=report))


@app.command()
def plan(
    model: Model = None,
    json: Json = False,
    ctx: Ctx = None,
    ngl: Ngl = None,
    threads: Threads = None,
    kv: Kv = None,
    parallel: Parallel = None,
    hw: Hw = None,
    ram: Ram = None,
    vram: Vram = None,
    quant: Quant = None,
    goal: Goal = None,
    prefer: Prefer = None,
    mmproj: Mmproj = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every value with its reason, every byte's source.")
    ] = False,
    offline: Offline = False,
) -> None:
    """How a model would best run here, and why. Nothing is loaded."""
    from localllm.cli import finding, prepare, references, render, simulation

    if hw in simulation.LISTING:
        simulation.print_presets(as_json=json)
        return
    if model is None:
        raise UsageError("missing argument 'MODEL'", "localllm plan --help")
    wishes = prepare.wishes(
        quant=quant,
        prefer=prefer,
        n_ctx=ctx,
        n_gpu_layers=ngl,
        n_threads=threads,
        kv=kv,
        n_parallel=parallel,
        mmproj=mmproj,
    )
    machine = simulation.simulation(hw, ram, vram)
    aim = goal or ("serve" if parallel and parallel > 1 else "chat")
    found = finding.find_models(model, references.make_web(offline=offline), quant)
    if found.note:
        render.say(found.note)
    prepared = prepare.prepare(found, wishes, aim, machine)
    if json:
        render.print_json(prepare.document(prepared))
    else:
        render.print_plan(prepared.plan, sys.stdout, explain=explain)
        if not explain:
            render.print_hint("every value's reason: --explain", sys.stdout)


@app.command()
def chat(
    model: Model = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Ask this, print the answer and leave."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", help="The system prompt."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Keep the conversation under this name, and go on with it."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, help="0 always takes the likeliest token."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", min=0, help="Draw from so many likeliest tokens."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest share."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", min=0.0, max=1.0, help="Least share of the likeliest token's."),
    ] = None,
    repeat_penalty: Annotated[
        float | None,
        typer.Option("--repeat-penalty", min=0.0, help="Above 1 makes repeating less likely."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="The same seed and prompt give the same answer."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", min=1, help="Longest answer."),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Time and tokens after each answer.")
    ] = False,
    reasoning: Annotated[
        str | None,
        typer.Option("--reasoning", help="show or hide what a thinking model thinks."),
    ] = None,
    markdown: Annotated[
        bool | None,
        typer.Option("--markdown/--plain", help="Render Markdown; on a terminal by default."),
    ] = None,
    chat_template: Annotated[
        str | None,
        typer.Option("--chat-template", help="llama.cpp's name of a template: chatml, llama3, ..."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Talk to this OpenAI-compatible server instead."),
    ] = None,
    ctx: Ctx = None,
    ngl: Ngl = None,
    threads: Threads = None,
    kv: Kv = None,
    quant: Quant = None,
    goal: Goal = None,
    prefer: Prefer = None,
) -> None:
    """Talk to a model. Without MODEL: the last one used, else the demo."""
    from localllm.cli import converse, prepare
    from localllm.completion import Sampling

    converse.run(
        model=model,
        prompt=prompt,
        system=system,
        session=session,
        sampling=Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            seed=seed,
            max_tokens=max_tokens,
        ),
        stats=stats,
        reasoning=reasoning,
        markdown=markdown,
        chat_template=chat_template,
        url=url,
        wishes=prepare.wishes(
            quant=quant, prefer=prefer, n_ctx=ctx, n_gpu_layers=ngl, n_threads=threads, kv=kv
        ),
        goal=goal or "chat",
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def serve(
    context: typer.Context,
    model: Model = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port; 0 is a free one.  [default: 8080]"),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help="Keys: a line each, KEY or NAME KEY."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen off loopback without keys.")
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=0, help="llama-servers; 0 is one per GPU.  [default: 1]"),
    ] = None,
    queue_limit: Annotated[
        int | None,
        typer.Option(
            "--queue-limit", min=0, help="Requests that may wait.  [default: 16 for each slot]"
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate, PEM: answers HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="The certificate's key, PEM.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", help="Web pages of this origin may use it; repeatable."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A name that it is reached by; repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A serve.yaml: these settings and all others."),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Start it, and return when it can answer.")
    ] = False,
    print_systemd: Annotated[
        bool, typer.Option("--print-systemd", help="Print a systemd unit that runs this.")
    ] = False,
    direct: Annotated[
        bool, typer.Option("--direct", help="Become llama-server itself; no gateway before it.")
    ] = False,
    ctx: Ctx = None,
    ngl: Ngl = None,
    threads: Threads = None,
    kv: Kv = None,
    parallel: Parallel = None,
    quant: Quant = None,
    goal: Goal = None,
    prefer: Prefer = None,
    mmproj: Mmproj = None,
) -> None:
    """Serve a model by llama.cpp's OpenAI-style server, watched and measured.

    It runs with the plan for this machine, on this machine's loopback unless told otherwise.
    Arguments after -- are llama-server's own.
    """
    from localllm.cli import prepare, serve

    given = {
        "host": host,
        "port": port,
        "api_key_file": api_key_file,
        "insecure": insecure or None,
        "replicas": replicas,
        "queue_limit": queue_limit,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "cors_origins": tuple(cors_origin) if cors_origin else None,
        "allowed_hosts": tuple(allowed_host) if allowed_host else None,
    }
    argv = _typed_after("serve")
    *_, passed_on = _split(argv)
    # The parser takes the first word after the dashes for the model, where none is before them.
    named = [word for word in (model, *context.args) if word is not None]
    named = named[: len(named) - len(passed_on)]
    if len(named) > 1:
        raise UsageError(f"got an extra argument: {named[1]}", "localllm serve --help")
    order = serve.Order(
        ref=named[0] if named else None,
        flags={name: value for name, value in given.items() if value is not None},
        config=config,
        wishes=prepare.wishes(
            quant=quant,
            prefer=prefer,
            n_ctx=ctx,
            n_gpu_layers=ngl,
            n_threads=threads,
            kv=kv,
            n_parallel=parallel,
            mmproj=mmproj,
        ),
        goal=goal or "serve",
        extra_argv=tuple(passed_on),
        direct=direct,
        argv=argv,
    )
    if print_systemd:
        serve.print_systemd(order)
    elif background:
        serve.background(order)
    else:
        serve.run(order)


@engine_app.command("install")
def engine_install(
    backend: Annotated[
        str, typer.Option("--backend", help="auto, cpu, cuda, rocm, vulkan or metal.")
    ] = "auto",
    prebuilt: Annotated[
        bool, typer.Option("--prebuilt", help="The maintainer's wheel: the library only.")
    ] = False,
    wheelhouse: Annotated[
        Path | None,
        typer.Option("--wheelhouse", help="A folder of packages that stands for the network."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build again, whatever is here.")
    ] = False,
    json: Json = False,
) -> None:
    """Build llama.cpp for this machine and install it here."""
    argv = ["install", "--backend", backend]
    argv += ["--prebuilt"] if prebuilt else []
    argv += ["--wheelhouse", str(wheelhouse)] if wheelhouse else []
    argv += ["--rebuild"] if rebuild else []
    _build([*argv, "--json"] if json else argv)


@engine_app.command("status")
def engine_status(json: Json = False) -> None:
    """Which engine is here, and what an install would make."""
    _build(["status", "--json"] if json else ["status"])


def _build(argv: list[str]) -> None:
    """The very program that install.sh runs."""
    from localllm.engine import build

    raise typer.Exit(build.main(argv))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns the process's exit status.

    Every error a person can meet ends here: one sentence, a blank line, a hint. A traceback is
    shown only with --debug.
    """
    global _words
    _words = tuple(argv)
    own, dashes, passed_on = _split(argv)
    if "--debug" in own:  # wherever it stands
        own = [word for word in own if word != "--debug"]
        os.environ["LOCALLLM_DEBUG"] = "1"
    try:
        # Not what Python was called with: a server in the background is started with -c.
        argv = [*own, *dashes, *passed_on]
        status = app(args=argv, prog_name="localllm", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # `localllm … | head`: the reader has enough. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LocalllmError as error:
        return _tell(error)
    except Exception as error:
        if _is_typers_own(error):
            return _tell(UsageError(_one_sentence(error), f"{_command_of(error)} --help"))
        if type(error).__name__ == "Abort":
            return INTERRUPTED_EXIT_CODE
        if _debugging():
            raise
        return _tell(
            LocalllmError(
                f"this is a bug in localllm: {type(error).__name__}: {error}",
                "run it again with --debug, and report it with localllm doctor --report",
            )
        )
    return status if isinstance(status, int) else 0


#: The words of this command line, as they were typed.
_words: tuple[str, ...] = ()


def _typed_after(command: str) -> tuple[str, ...]:
    """What followed the command, without what makes it return at once."""
    at = _words.index(command) + 1
    own, dashes, passed_on = _split(_words[at:])
    kept = [word for word in own if word not in ("--background", "--print-systemd")]
    return (*kept, *dashes, *passed_on)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What is for us, the dashes, and what goes on to llama-server."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def _tell(error: LocalllmError) -> int:
    if _debugging():
        import traceback

        traceback.print_exception(error)
        sys.stderr.write(error.detail)
    text = f"error: {error.message}\n"
    if error.hint:
        text += f"\nhint: {error.hint}\n"
    sys.stderr.write(text)
    return error.exit_code


def _debugging() -> bool:
    return bool(os.environ.get("LOCALLLM_DEBUG"))


def _is_typers_own(error: Exception) -> bool:
    """A usage error of typer's parser, whose classes are click's or typer's copy of them."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _one_sentence(error: Exception) -> str:
    message = str(error.format_message()).strip()  # type: ignore[attr-defined]
    message = " ".join(message.split())
    return message[:1].lower() + message[1:].rstrip(".") if message else "that cannot be meant"


def _command_of(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else "localllm"
