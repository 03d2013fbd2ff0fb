"""The engine, made and installed: llama-cpp-python's pinned sdist with llama.cpp's own tools.

Standard library only, and runnable before anything is installed:
`python localllm/engine/build.py install|status` (install.sh does) or imported by
`localllm engine`. It works on the environment of the Python that runs it. What is here to build
with is toolchain.py's to know, which engine to build recipe.py's, how workshop.py's, where wheels
are kept wheelcache.py's, what is installed installed.py's. macOS and Windows are unproven.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    # Run as a plain file: the packages' folder takes the place of this file's own.
    sys.path[0] = __file__.replace("\\", "/").rpartition("/")[0] + "/../.."

import argparse
import contextlib
import json
import os
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localllm.engine import installed, recipe, wheelcache, workshop
from localllm.engine.buildlog import ProgressLine, clock
from localllm.engine.installed import Environment, Stamp, read_stamp, verify
from localllm.engine.recipe import BACKENDS, BuildError, Choice, Recipe, Say
from localllm.engine.toolchain import Machine, survey

__all__ = [
    "BACKENDS", "BuildError", "Environment", "Options", "Result", "Stamp", "Status",
    "install", "main", "pinned_version", "read_stamp", "status", "verify",
]  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What a person may ask for.

    Attributes:
        backend: "auto" or one of BACKENDS.
        prebuilt: the maintainer's binary wheel, library only, instead of a build.
        wheelhouse: a folder of packages that stands for the network, or None.
        rebuild: neither the installed nor a cached engine will do.
    """

    backend: str = "auto"
    prebuilt: bool = False
    wheelhouse: Path | None = None
    rebuild: bool = False


@dataclass(frozen=True)
class Result:
    """What `install` did.

    Attributes:
        action: "unchanged", "built", "cache", "wheelhouse" or "prebuilt".
        stamp: of the engine that is installed now.
        tools: llama.cpp's programs that came with it; none with a prebuilt wheel.
        seconds: how long it took.
    """

    action: str
    stamp: Stamp
    tools: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Status:
    """The installed engine, the one that an install would make, and the cache.

    Attributes:
        pinned_version: llama-cpp-python's version that this localllm is for.
        installed_version: the one that is here, None for none.
        stamp: None when the engine was not installed by localllm.
        tools: llama.cpp's programs in the environment.
        outdated: names of what differs from what an install would make now; empty when nothing.
        backend, because: what an install would choose now.
        cache: the folder of cached wheels, and cached: its entries as (key, backend, bytes).
    """

    pinned_version: str
    installed_version: str | None
    stamp: Stamp | None
    tools: tuple[str, ...]
    outdated: tuple[str, ...]
    backend: str
    because: str
    cache: Path
    cached: tuple[tuple[str, str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document form."""
        document = asdict(self)
        document["stamp"] = self.stamp.to_json() if self.stamp else None
        document["cache"] = str(self.cache)
        return {"schema_version": 1, **document}


def pinned_version() -> str:
    """llama-cpp-python's version in the dependencies: of the checkout, else of the installation.

    Raises:
        BuildError: the pin is in neither.
    """
    requirements: list[str] | None = None
    with contextlib.suppress(OSError):
        text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        # Another project's file may lie beside site-packages.
        if re.search(r'^name = "localllm"$', text, re.MULTILINE):
            requirements = re.findall(r'^\s*"(llama-cpp-python==[^"]+)"', text, re.MULTILINE)
    if requirements is None:
        from importlib import metadata

        with contextlib.suppress(metadata.PackageNotFoundError):
            requirements = metadata.requires("localllm")
    for requirement in requirements or ():
        if found := re.match(r"llama[-_]cpp[-_]python\s*==\s*([0-9][0-9A-Za-z.]*)", requirement):
            return found[1]
    raise BuildError("localllm's own dependencies do not pin llama-cpp-python", exit_code=1)


def status(options: Options | None = None, environment: Environment | None = None) -> Status:
    """Looks at the engine installed here, the cache, and what an install would do.

    Raises:
        BuildError: the options ask for what cannot be had here.
    """
    options, env = options or Options(), environment or Environment.current()
    machine, version = survey(), pinned_version()
    stamp = read_stamp(env)
    choice = recipe.choose_backend(machine, options.backend)
    wanted = recipe.compose(version, machine, choice, os.environ)
    cache = wheelcache.engine_cache_dir()
    info = installed.dist_info(env)
    return Status(
        pinned_version=version,
        installed_version=info.name.split("-")[1].removesuffix(".dist") if info else None,
        stamp=stamp,
        tools=env.tools(),
        outdated=_outdated(stamp, wanted),
        backend=choice.backend,
        because=choice.because,
        cache=cache,
        cached=tuple(
            (entry.recipe.key, entry.recipe.backend, entry.size_bytes)
            for entry in wheelcache.entries(cache)
        ),
    )


def install(
    options: Options,
    say: Say,
    progress: Say | None = None,
    environment: Environment | None = None,
) -> Result:
    """Brings the engine into an environment: finds out what to build, and builds it if it must.

    Precedence: 1. the installed engine, when it is the wanted one, 2. a wheel in the wheelhouse or
    the maintainer's, where asked for, 3. the cache, 4. a build, which then is cached.

    Args:
        options: what is asked for.
        say: prints one line for a person.
        progress: shows a passing line, some times a second during a build.
        environment: where to; the running Python's by default.

    Raises:
        BuildError: with a sentence, a remedy and an exit code.
    """
    start = time.monotonic()
    env, version = environment or Environment.current(), pinned_version()
    show = progress or (lambda _text: None)
    if options.wheelhouse is not None and not options.wheelhouse.is_dir():
        raise BuildError(f"the wheelhouse {options.wheelhouse} is not a folder", exit_code=3)
    machine, offline = survey(), options.wheelhouse is not None
    ready = _ready_wheel(options.wheelhouse, version) if options.wheelhouse else None
    to_build = not options.prebuilt and ready is None
    choice = recipe.choose_backend(machine, options.backend, to_build=to_build)
    wanted = recipe.compose(version, machine, choice, os.environ, offline=offline)
    index = ""
    if options.prebuilt:
        index = recipe.PREBUILT_INDEX + recipe.prebuilt_folder(machine, choice)
        wanted = Recipe(version, choice.backend, (f"prebuilt {index}",))
    elif ready:
        flags = (f"wheel {wheelcache.file_sha256(ready)}",)
        wanted = Recipe(version, _backend_of(ready), flags)

    stamp = read_stamp(env)
    if stamp and not options.rebuild:
        differences = stamp.recipe.differences(wanted)
        if not differences:
            say(f"the engine is here already: {_describe(stamp.recipe, stamp.ui)}")
            return Result("unchanged", stamp, env.tools(), time.monotonic() - start)
        say(f"the engine here differs in {', '.join(differences)}, and will be replaced")
    installed.require_pip(env)
    if options.prebuilt:
        say(f"engine llama-cpp-python {version}, the maintainer's wheel for {choice.backend}")
        say("this wheel is the library only: `localllm chat` runs, `localllm serve` will not")
        installed.install_prebuilt(env, version, index, show)
        stamp = installed.finish(env, wanted, "prebuilt", say, ui=False)
    elif ready:
        say(f"engine {ready.name} from the wheelhouse, backend {wanted.backend}")
        installed.install_wheel(env, ready)
        stamp = installed.finish(env, wanted, "wheelhouse", say, ui=None)
    else:
        order = _Order(options, env, machine, choice, wanted, say, show)
        entry, source = _from_cache_or_built(order)
        installed.install_wheel(env, entry.wheel)
        stamp = installed.finish(
            env,
            entry.recipe,
            source,
            say,
            ui=entry.ui,
            ui_note=entry.ui_note or (None if entry.ui else order.why_no_ui),
            built_at=entry.built_at,
        )
    return Result(stamp.source, stamp, env.tools(), time.monotonic() - start)


def _outdated(stamp: Stamp | None, wanted: Recipe) -> tuple[str, ...]:
    if stamp is None:
        return ()
    names = stamp.recipe.differences(wanted)
    if stamp.source in ("wheelhouse", "prebuilt"):  # made elsewhere: nobody asked for this compiler
        names = [name for name in names if name == "version"]
    return tuple(names)


@dataclass(frozen=True)
class _Order:
    """An engine that is wanted: what, where, on which machine, and who is told."""

    options: Options
    environment: Environment
    machine: Machine
    choice: Choice
    wanted: Recipe
    say: Say
    show: Say

    @property
    def why_no_ui(self) -> str | None:
        return recipe.without_ui(self.machine, offline=self.options.wheelhouse is not None)

    def announce(self, entry: wheelcache.Entry | None) -> None:
        """Says what was chosen, and what is wanting for a better choice."""
        machine = self.machine
        compiler = machine.compiler.name if machine.compiler else "no compiler"
        npm = machine.npm.version if machine.npm else None
        ui = f"no web UI ({self.why_no_ui})" if self.why_no_ui else f"web UI (npm {npm or '?'})"
        if entry:
            compiler, ui = "from the cache", f"built {entry.built_at[:10]}"
            ui += " with its web UI" if entry.ui else " without a web UI"
        parts = [
            f"engine llama-cpp-python {self.wanted.version}",
            f"backend {self.choice.backend} ({self.choice.because})",
            machine.isa_label,
            compiler,
            ui,
        ]
        self.say(", ".join(parts))
        if self.choice.advice:
            self.say(self.choice.advice)


def _from_cache_or_built(order: _Order) -> tuple[wheelcache.Entry, str]:
    wanted, say, rebuild = order.wanted, order.say, order.options.rebuild
    cache = wheelcache.engine_cache_dir()
    entry = None if rebuild else wheelcache.lookup(cache, wanted, say)
    order.announce(entry)
    if entry:
        return entry, "cache"
    workshop.preflight(wanted, order.machine, cache, say)
    began = time.time()
    waiting = "another install is building this very engine: waiting for it, "
    with wheelcache.locked(cache, wanted.key, lambda s: order.show(waiting + clock(s))):
        # Whoever held the lock may have built it meanwhile.
        entry = wheelcache.lookup(cache, wanted, say)
        if entry and (not rebuild or entry.wheel.stat().st_mtime > began):
            say("taken from the cache, just built by another install")
            return entry, "cache"
        wheelcache.sweep(cache, wanted.key)
        entry = workshop.build(
            wanted,
            order.machine,
            order.environment.python,
            cache,
            order.options.wheelhouse,
            say,
            order.show,
        )
        return entry, "built"


def _ready_wheel(wheelhouse: Path, version: str) -> Path | None:
    """An engine wheel in the wheelhouse: the newest one that has the tools, else any."""
    wheels = sorted(
        wheelhouse.glob(f"{workshop.DISTRIBUTION}-{version}-*.whl"),
        key=lambda wheel: (_has_server(wheel), wheel.stat().st_mtime),
    )
    return wheels[-1] if wheels else None


def _names(wheel: Path) -> list[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as exc:
        raise BuildError(f"{wheel} is not a sound wheel: {exc}", exit_code=6) from exc


def _has_server(wheel: Path) -> bool:
    return any(re.search(r"(^|/)bin/llama-server(\.exe)?$", name) for name in _names(wheel))


def _backend_of(wheel: Path) -> str:
    """What a wheel was built for, by the ggml libraries in it."""
    for library, backend in (("cuda", "cuda"), ("hip", "rocm"), ("vulkan", "vulkan"),
                             ("metal", "metal")):  # fmt: skip
        if any(re.search(rf"llama_cpp/lib/(lib)?ggml-{library}\.", name) for name in _names(wheel)):
            return backend
    return "cpu"


def _describe(made_by: Recipe, ui: bool | None) -> str:
    parts = [f"llama-cpp-python {made_by.version}", f"backend {made_by.backend}"]
    parts.append({True: "web UI", False: "no web UI", None: ""}[ui])
    return ", ".join(filter(None, parts))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end a build as Ctrl-C does, so that nothing is left running."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py", description="Builds and installs the engine, llama.cpp."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("install", "build the engine, or take it from the cache, and install it"),
        ("status", "what is installed, and what an install would do"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--backend", default="auto", choices=["auto", *BACKENDS])
        command.add_argument("--json", action="store_true", help="a JSON document on stdout")
        if name == "install":
            command.add_argument("--prebuilt", action="store_true", help="the maintainer's wheel")
            command.add_argument("--wheelhouse", type=Path, metavar="DIR", help="no network")
            command.add_argument("--rebuild", action="store_true", help="build in any case")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The script: returns the exit status."""
    arguments = _parser().parse_args(argv)

    def say(text: str) -> None:
        line.clear()
        print(f"localllm: {text}", file=sys.stderr, flush=True)

    line = ProgressLine(sys.stderr, say)
    try:
        if arguments.command == "status":
            _print_status(status(Options(arguments.backend)), as_json=arguments.json)
            return 0
        options = Options(
            arguments.backend,
            arguments.prebuilt,
            arguments.wheelhouse.resolve() if arguments.wheelhouse else None,
            arguments.rebuild,
        )
        with _interruptible():
            result = install(options, say, line)
        if arguments.json:
            document = {**asdict(result), "stamp": result.stamp.to_json()}
            print(json.dumps({"schema_version": 1, **document}, indent=1))
    except BuildError as exc:
        line.clear()
        print(f"localllm: {exc.message}", file=sys.stderr)
        if exc.hint:
            print(f"\nhint: {exc.hint}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        line.clear()
        print("localllm: interrupted; the engine was not changed", file=sys.stderr)
        return 130
    return 0


def _print_status(now: Status, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(now.to_json(), indent=1))
        return
    if now.installed_version is None:
        print(f"engine: none (llama-cpp-python {now.pinned_version} is wanted)")
    elif now.stamp is None:
        print(f"engine: llama-cpp-python {now.installed_version}, not installed by localllm")
    else:
        stamp = now.stamp
        print(f"engine: {_describe(stamp.recipe, stamp.ui)} ({stamp.source}, {stamp.recipe.key})")
    print(f"tools:  {', '.join(now.tools) or 'none'}")
    differs = f"; the one here differs in {', '.join(now.outdated)}" if now.outdated else ""
    print(f"choice: {now.backend} ({now.because}){differs}")
    print(f"cache:  {now.cache}")
    for key, backend, size_bytes in now.cached:
        print(f"  {key}  {backend}  {size_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
