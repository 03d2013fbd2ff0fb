"""Where llama.cpp is on this machine: its native tools and the Python library's own copy.

It looks and names; it starts nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import EngineMissingError

SERVER = "llama-server"
BENCH = "llama-bench"
QUANTIZE = "llama-quantize"
PERPLEXITY = "llama-perplexity"
RPC_SERVER = "ggml-rpc-server"
#: What localllm itself runs, in the order in which doctor names what is missing.
TOOL_NAMES = (SERVER, "llama-fit-params", BENCH, QUANTIZE, PERPLEXITY, RPC_SERVER)

ENGINE_DIR_VARIABLE = "LOCALLLM_ENGINE_DIR"
_EXE = ".exe" if sys.platform == "win32" else ""
_INSTALL_HINT = "localllm engine install (or ./install.sh in a checkout)"


@dataclass(frozen=True)
class Tools:
    """A folder with llama.cpp's programs.

    Attributes:
        folder: where they are.
        names: which of TOOL_NAMES are there.
    """

    folder: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """The program of that name.

        Raises:
            EngineMissingError: this folder has no such program.
        """
        if name not in self.names:
            raise EngineMissingError(f"{name} is missing in {self.folder}", _INSTALL_HINT)
        return self.folder / f"{name}{_EXE}"


def find_tools() -> Tools | None:
    """The llama.cpp programs to use.

    Precedence: 1. `LOCALLLM_ENGINE_DIR` (that folder, or its `bin`), whatever it holds: a person
    who names a folder wants that one or an error; 2. this environment's own `site-packages/bin`,
    where install.sh puts the programs built with the Python library; 3. the folder of the first
    `llama-server` on PATH.
    """
    named = os.environ.get(ENGINE_DIR_VARIABLE)
    if named:
        folder = Path(named).expanduser()
        return _tools_in(folder / "bin") or _tools_in(folder)
    own = _tools_in(Path(sysconfig.get_path("purelib")) / "bin")
    if own is not None:
        return own
    on_path = shutil.which(SERVER)
    return _tools_in(Path(on_path).resolve().parent) if on_path else None


def require_tools(*names: str) -> Tools:
    """The tools, all of those named being there.

    Raises:
        EngineMissingError: none were found, or one of the named is missing.
    """
    tools = find_tools()
    if tools is None:
        named = os.environ.get(ENGINE_DIR_VARIABLE)
        if named:
            raise EngineMissingError(
                f"{ENGINE_DIR_VARIABLE} is {named}, and there is no {SERVER} in it",
                f"unset {ENGINE_DIR_VARIABLE}, or name the folder that holds {SERVER}",
            )
        raise EngineMissingError(f"no {SERVER} was found on this machine", _INSTALL_HINT)
    for name in names:
        tools.path(name)
    return tools


def find_library() -> Path | None:
    """The folder of llama-cpp-python's shared libraries, found without importing it."""
    spec = importlib.util.find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        lib = Path(folder) / "lib"
        if lib.is_dir():
            return lib
    return None


def find_projector_library() -> Path | None:
    """Libmtmd of the same build as the library: beside it, or where install.sh puts it."""
    name = {"win32": "mtmd.dll", "darwin": "libmtmd.dylib"}.get(sys.platform, "libmtmd.so")
    for folder in (find_library(), Path(sysconfig.get_path("purelib")) / "lib"):
        if folder is not None and (folder / name).is_file():
            return folder / name
    return None


def library_version() -> str | None:
    """The installed version of llama-cpp-python, by its metadata."""
    import importlib.metadata

    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools_in(folder: Path) -> Tools | None:
    names = tuple(name for name in TOOL_NAMES if os.access(folder / f"{name}{_EXE}", os.X_OK))
    return Tools(folder, names) if names else None
