"""The engine as it lies in a Python environment: installed, proven to run, stamped.

Standard library only. It knows pip, site-packages and the stamp; not how a wheel is made.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localllm.engine import wheelcache
from localllm.engine.buildlog import Progress, complaints, explain, is_network_failure
from localllm.engine.recipe import BuildError, Recipe, Say
from localllm.engine.workshop import DISTRIBUTION, UNWANTED_VARIABLES, watch

STAMP_NAME = "engine.json"


@dataclass(frozen=True)
class Environment:
    """A Python environment: its interpreter and its site-packages."""

    python: Path
    site_packages: Path

    @classmethod
    def current(cls) -> Environment:
        """The one this process runs in."""
        return cls(Path(sys.executable), Path(sysconfig.get_path("platlib")))

    @property
    def tools_folder(self) -> Path:
        """Where the wheel puts llama-server and its siblings."""
        return self.site_packages / "bin"

    def tools(self) -> tuple[str, ...]:
        """The names of llama.cpp's programs here, sorted, llama-server first."""
        names = {
            path.name.removesuffix(".exe")
            for path in self.tools_folder.glob("*")
            if path.name.startswith(("llama-", "ggml-")) and path.suffix in ("", ".exe")
        }
        return tuple(sorted(names, key=lambda name: (name != "llama-server", name)))


@dataclass(frozen=True)
class Stamp:
    """What is known of the installed engine; kept as engine.json beside its tools.

    Attributes:
        recipe: what it was made by.
        source: "built", "cache", "wheelhouse" or "prebuilt".
        ui: the web UI is in it; None when that is not known. ui_note: why not.
        built_at, installed_at: UTC, ISO 8601.
        record_sha256: of the installed wheel's RECORD, which ties the stamp to that very wheel.
    """

    recipe: Recipe
    source: str
    ui: bool | None
    ui_note: str | None
    built_at: str | None
    installed_at: str
    record_sha256: str

    def to_json(self) -> dict[str, Any]:
        """The document form; the recipe's fields and key are spread out in it."""
        document = asdict(self)
        made = document.pop("recipe")
        made["ui_wanted"] = made.pop("ui")
        return {"schema_version": 1, "key": self.recipe.key, **made, **document}


def read_stamp(environment: Environment | None = None) -> Stamp | None:
    """The stamp of the engine installed here.

    None when there is none, or when another llama-cpp-python was installed since.
    """
    env = environment or Environment.current()
    try:
        document = json.loads((env.tools_folder / STAMP_NAME).read_text(encoding="utf-8"))
        stamp = Stamp(
            recipe=Recipe.from_json({**document, "ui": document["ui_wanted"]}),
            **{
                name: document[name]
                for name in (
                    "source", "ui", "ui_note", "built_at", "installed_at", "record_sha256"
                )
            },
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stamp if stamp.record_sha256 == _record_sha256(env) else None


def dist_info(env: Environment) -> Path | None:
    """The folder where pip wrote down the installed llama-cpp-python; None for none."""
    return next(iter(env.site_packages.glob(f"{DISTRIBUTION}-*.dist-info")), None)


def _record_sha256(env: Environment) -> str | None:
    info = dist_info(env)
    try:
        return wheelcache.file_sha256(info / "RECORD") if info else None
    except OSError:
        return None


def require_pip(env: Environment) -> None:
    """Sees to it that the environment has pip, which a uv-made one need not.

    Raises:
        BuildError: it has none, and none can be had.
    """

    def has_pip() -> bool:
        return run([str(env.python), "-c", "import pip"])[0] == 0

    if has_pip():
        return
    run([str(env.python), "-m", "ensurepip", "--upgrade"])
    if not has_pip() and (uv := shutil.which("uv")):
        run([uv, "pip", "install", "--python", str(env.python), "pip"])
    if not has_pip():
        raise BuildError(
            f"the environment of {env.python} has no pip to build with",
            f"uv pip install --python {shlex.quote(str(env.python))} pip",
        )


def _clean_environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name not in UNWANTED_VARIABLES}


def run(argv: list[str]) -> tuple[int, str]:
    """The exit status (negative: a signal) and everything printed, of a short command."""
    try:
        done = subprocess.run(
            argv,
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as exc:
        return 127, str(exc)
    return done.returncode, done.stdout


def _pip_install(env: Environment, arguments: list[str], what: str) -> None:
    code, text = run([str(env.python), "-m", "pip", "install", *arguments])
    if code == 0:
        return
    reason = complaints(text, 1)
    if "externally-managed-environment" in text:
        hint: str | None = "make an environment first: ./install.sh does"
    else:
        hint = explain(text)
    network = is_network_failure(text)
    raise BuildError(
        f"pip could not install {what}: {reason[0] if reason else f'exit status {code}'}",
        hint,
        5 if network else 9,
    )


def install_wheel(env: Environment, wheel: Path) -> None:
    """Installs a wheel in place of whatever llama-cpp-python is there.

    Raises:
        BuildError: pip refuses.
    """
    # The wheel's own dependencies come with localllm's; here they would need a network.
    arguments = ["--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    _pip_install(env, arguments, wheel.name)


def prebuilt_arguments(version: str, index: str) -> list[str]:
    """`pip install` of the maintainer's wheel: this version, and never the sdist.

    The exact version, because a newer sdist on another index would otherwise win and be built;
    only-binary, because the sdist of the same version would otherwise do, too.
    """
    return [
        "--only-binary", "llama-cpp-python", "--force-reinstall", "--no-deps",
        "--retries", "2", "--timeout", "20", "--progress-bar", "off", "--extra-index-url", index,
        f"llama-cpp-python=={version}",
    ]  # fmt: skip


def install_prebuilt(env: Environment, version: str, index: str, show: Say) -> None:
    """Installs the maintainer's wheel from the maintainer's index.

    Raises:
        BuildError: the index cannot be reached, or has no such wheel for this system.
    """
    log = wheelcache.engine_cache_dir() / "logs" / "prebuilt.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(env.python), "-m", "pip", "install", *prebuilt_arguments(version, index)]
    progress = Progress(time.monotonic(), "fetching the maintainer's wheel")
    if watch(argv, _clean_environment(), log.parent, log, show, progress) == 0:
        return
    text = log.read_text(encoding="utf-8", errors="replace")
    network = is_network_failure(text)
    what = "cannot be reached" if network else f"has no llama-cpp-python {version} for this system"
    raise BuildError(
        f"the maintainer's index {index} {what}; pip's words are in {log}",
        "check the network, or build it: leave out --prebuilt",
        5 if network else 3,
    )


def finish(
    env: Environment,
    made_by: Recipe,
    source: str,
    say: Say,
    *,
    ui: bool | None,
    ui_note: str | None = None,
    built_at: str | None = None,
) -> Stamp:
    """Proves that the installed engine runs here, then stamps it."""
    offload = verify(env)
    tools = env.tools()
    if made_by.backend != "cpu" and not offload:
        say(f"the engine runs, but was not built with {made_by.backend}: it will use the CPU only")
    stamp = Stamp(
        recipe=made_by,
        source=source,
        ui=ui,
        ui_note=ui_note,
        built_at=built_at,
        installed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        record_sha256=_record_sha256(env) or "",
    )
    env.tools_folder.mkdir(exist_ok=True)
    draft = env.tools_folder / f"{STAMP_NAME}.new"
    draft.write_text(json.dumps(stamp.to_json(), indent=1) + "\n", encoding="utf-8")
    draft.replace(env.tools_folder / STAMP_NAME)
    if not tools:
        say("engine ready: the library; no llama-server is in it, so `localllm serve` will not run")
    else:
        names = [name for name in ("llama-server", "llama-bench") if name in tools]
        more = len(tools) - len(names)
        kept = " (cached for the next environment)" if source == "built" else ""
        say(f"engine ready: {', '.join(names)}{f' and {more} more tools' if more else ''}{kept}")
    return stamp


#: A child's program: a library of the wrong instruction set or without its CUDA kills or fails it.
_ASK_LIBRARY = """
import ctypes, os, sys
if hasattr(os, "add_dll_directory"):
    os.add_dll_directory(os.path.dirname(sys.argv[1]))
ask = ctypes.CDLL(sys.argv[1]).llama_supports_gpu_offload
ask.restype = ctypes.c_bool
print("gpu-offload", ask())
"""


def verify(env: Environment) -> bool:
    """Loads the installed library and runs the installed server, each in a child.

    Returns:
        Whether the library can use a GPU.

    Raises:
        BuildError: one of them does not run, with the last thing it said.
    """
    folder = env.site_packages / "llama_cpp" / "lib"
    names = ("libllama.so", "libllama.dylib", "llama.dll")
    library = next((folder / name for name in names if (folder / name).exists()), None)
    if library is None:
        raise BuildError(f"the engine's library is missing in {folder}", "run this with --rebuild")
    code, text = run([str(env.python), "-c", _ASK_LIBRARY, str(library)])
    if code != 0 or "gpu-offload" not in text:
        raise _does_not_run("the engine's library", code, text)
    server = env.tools_folder / ("llama-server.exe" if os.name == "nt" else "llama-server")
    if server.exists():
        server_code, server_text = run([str(server), "--version"])
        if server_code != 0:
            raise _does_not_run("llama-server", server_code, server_text)
    return "gpu-offload True" in text


def _does_not_run(what: str, code: int, text: str) -> BuildError:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    if code < 0:
        name = signal.Signals(-code).name
        reason, hint = f"died of {name}", "run this with --rebuild"
        if name == "SIGILL":
            reason += ": it was built for another processor"
    else:
        reason, hint = last[:200] or f"exit status {code}", "run this with --rebuild"
        if "libcu" in last or "libnv" in last:
            hint = "the CUDA libraries are not found: sudo ldconfig, or set LD_LIBRARY_PATH to them"
    return BuildError(f"{what} was installed but does not run: {reason}", hint)
