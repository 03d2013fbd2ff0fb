"""Who may import whom: the rules of the house (docs/architecture.md), read from the source.

Imports inside functions, under TYPE_CHECKING and through `import_module("…")` count as well.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import localllm

PACKAGE = Path(localllm.__file__).parent

#: Values in, values out.
KNOWN = {
    "errors", "units", "paths", "hardware", "gguf", "naming", "quants", "profiles", "plan",
    "planner", "presets", "catalogue", "diagnosis", "engine_report", "completion", "outline",
    "variants", "measured", "weights", "digests", "splice", "readahead", "recommendation",
    "recovery",
}  # fmt: skip
#: Each knows one outside thing.
EDGES = {"probe", "engine", "hub", "store", "session", "measurements", "running"}
#: They put the others together.
COMPOSITIONS = {"chat", "pull", "gateway", "tune", "cli", "__main__"}
#: The package itself (its version) and the demo model (its path, and how it was made).
OTHERS = {"__init__", "demo"}

OUTSIDE = {
    "psutil", "pynvml", "huggingface_hub", "httpx", "urllib3", "filelock", "llama_cpp", "aiohttp",
    "prometheus_client",
}  # fmt: skip
TERMINAL = {"typer", "rich", "prompt_toolkit"}
#: What reaches files, the environment, the clock, the network or other programs. `paths` is the
#: one exception among the known: where folders are is in the environment.
SURROUNDINGS = {
    "os", "sys", "io", "time", "datetime", "subprocess", "socket", "ssl", "urllib", "http",
    "shutil", "tempfile", "glob", "random", "secrets", "logging", "threading", "multiprocessing",
    "asyncio", "concurrent", "ctypes", "platform", "signal", "platformdirs",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One module importing another.

    Attributes:
        importer: "localllm.engine.server".
        imported: "localllm.plan", or "subprocess".
        line: in the importer's source.
        in_function: it happens only when a function is called.
    """

    importer: str
    imported: str
    line: int
    in_function: bool

    @property
    def room(self) -> str:
        """Whose wish it is: "engine", "planner", ..."""
        return _room(self.importer)

    @property
    def target(self) -> str | None:
        """The room of ours that is wanted; None for a module of somebody else."""
        return _room(self.imported) if self.imported.split(".")[0] == "localllm" else None

    @property
    def library(self) -> str | None:
        """The library that is wanted; None for a module of ours."""
        return None if self.target else self.imported.split(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def _room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


@dataclass(frozen=True)
class Rule:
    """Something that no import may do.

    Attributes:
        breaks: whether this import does it.
        caught: a module and a source text of it that break the rule.
        allowed: the same, and it does not.
    """

    breaks: Callable[[Import], bool]
    caught: tuple[str, str]
    allowed: tuple[str, str]


RULES = {
    "the known never imports edges, compositions or the demo": Rule(
        lambda i: i.room in KNOWN and i.target in EDGES | COMPOSITIONS | {"demo"},
        ("localllm.planner", "def f():\n    from localllm.engine import server\n"),
        ("localllm.planner", "from localllm.plan import Plan\n"),
    ),
    "the known never imports what talks to the outside or to a person": Rule(
        lambda i: i.room in KNOWN and i.library in OUTSIDE | TERMINAL,
        ("localllm.hardware", "def f():\n    import psutil\n"),
        ("localllm.probe.memory", "import psutil\n"),
    ),
    "the known never reads its surroundings, but for paths": Rule(
        lambda i: i.room in KNOWN - {"paths"} and i.library in SURROUNDINGS,
        ("localllm.planner", "import os.path\n"),
        ("localllm.paths", "import os\nimport tempfile\nimport platformdirs\n"),
    ),
    "only profiles reads YAML": Rule(
        lambda i: i.room != "profiles" and i.library == "yaml",
        ("localllm.cli.app", "def f():\n    import yaml\n"),
        ("localllm.profiles", "def f():\n    import yaml\n"),
    ),
    "edges never import one another": Rule(
        lambda i: i.room in EDGES and i.target in EDGES - {i.room},
        ("localllm.probe.gpu", "from localllm import engine\n"),
        ("localllm.engine.run", "from localllm.engine import server\n"),
    ),
    "edges never import compositions": Rule(
        lambda i: i.room in EDGES and i.target in COMPOSITIONS,
        ("localllm.engine.run", "import localllm.cli.render\n"),
        ("localllm.cli.app", "import localllm.engine.run\n"),
    ),
    "only the engine imports llama_cpp": Rule(
        lambda i: i.room != "engine" and i.library == "llama_cpp",
        ("localllm.chat", "import importlib\nimportlib.import_module('llama_cpp.llama')\n"),
        ("localllm.engine.inprocess", "def f():\n    import llama_cpp\n"),
    ),
    "llama_cpp is imported inside functions only": Rule(
        lambda i: i.library == "llama_cpp" and not i.in_function,
        ("localllm.engine.inprocess", "try:\n    import llama_cpp\nexcept OSError:\n    pass\n"),
        ("localllm.engine.inprocess", "class A:\n    def f(self):\n        import llama_cpp\n"),
    ),
    "only the gateway imports aiohttp and prometheus_client": Rule(
        lambda i: i.room != "gateway" and i.library in {"aiohttp", "prometheus_client"},
        ("localllm.hub.download", "def f():\n    import aiohttp\n"),
        ("localllm.gateway.relay", "import aiohttp\nfrom prometheus_client import Counter\n"),
    ),
    "only the cli imports typer, rich and prompt_toolkit": Rule(
        lambda i: i.room != "cli" and i.library in TERMINAL,
        ("localllm.chat", "def f():\n    from rich.text import Text\n"),
        ("localllm.cli.render", "from rich.text import Text\n"),
    ),
    "the cli does not talk to the hub, the GPU or the engine's library by itself": Rule(
        lambda i: i.room == "cli" and i.library in OUTSIDE,
        ("localllm.cli.doctor", "import pynvml\n"),
        ("localllm.cli.doctor", "from localllm.probe import probe\n"),
    ),
    "nobody imports how the demo model was made": Rule(
        lambda i: i.room != "demo" and i.imported.startswith("localllm.demo."),
        ("localllm.cli.chat", "from localllm.demo import train\n"),
        ("localllm.cli.chat", "from localllm import demo\nfrom localllm.demo import model_path\n"),
    ),
    "the demo model's path costs no import": Rule(
        lambda i: i.importer == "localllm.demo" and i.library not in {"__future__", "pathlib"},
        ("localllm.demo", "import torch\n"),
        ("localllm.demo.train", "import torch\n"),
    ),
}


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module's source."""
    package = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for name in _named(node, package):
            yield Import(module, name, getattr(node, "lineno", 0), in_function)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function or inside)

    yield from visit(ast.parse(source), False)


def _named(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that this very node imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            name = f"{base}.{alias.name}"
            yield name if _is_module(name) else base
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
        called = called.id if isinstance(called, ast.Name) else called
        first = node.args[0]
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            yield str(first.value)


def _is_module(name: str) -> bool:
    """Whether `from a import b` of ours brings a module b, and not something that a holds."""
    if name.split(".")[0] != "localllm":
        return False
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _read(module: str) -> list[Import]:
    path = _modules()[module]
    source = path.read_text("utf-8")
    return list(imports_of(module, source, is_package=path.name == "__init__.py"))


@pytest.fixture(scope="module")
def every_import() -> list[Import]:
    return [found for module in _modules() for found in _read(module)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule(rule: Rule, every_import: list[Import]) -> None:
    assert [str(found) for found in every_import if rule.breaks(found)] == []


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_checker_catches_a_breach_of_the_rule(rule: Rule) -> None:
    assert any(rule.breaks(found) for found in imports_of(*rule.caught))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_checker_lets_pass_what_the_rule_allows(rule: Rule) -> None:
    assert [str(found) for found in imports_of(*rule.allowed) if rule.breaks(found)] == []


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        pytest.param("from . import server", ["localllm.engine.server"], id="a sibling"),
        pytest.param("from .server import stop", ["localllm.engine.server"], id="from a sibling"),
        pytest.param("from .. import probe", ["localllm.probe"], id="another room"),
        pytest.param("from localllm import paths, demo", ["localllm.paths", "localllm.demo"],
                     id="two at once"),
        pytest.param("from localllm import __version__", ["localllm"], id="a value"),
        pytest.param("import a.b as c, d", ["a.b", "d"], id="other names"),
        pytest.param("if TYPE_CHECKING:\n    import yaml", ["yaml"], id="for types only"),
        pytest.param("x = __import__('rich')", ["rich"], id="__import__"),
    ],
)  # fmt: skip
def test_the_checker_reads_every_kind_of_import(source: str, imported: list[str]) -> None:
    assert [found.imported for found in imports_of("localllm.engine.run", source)] == imported


def test_every_module_has_its_room() -> None:
    rooms = {_room(module) for module in _modules()}
    assert rooms - KNOWN - EDGES - COMPOSITIONS - OTHERS == set()
    assert rooms >= KNOWN, "a module of the known has gone: take it out of the table"


def test_the_builder_and_all_that_it_imports_need_nothing_but_python() -> None:
    """install.sh runs it before anything is installed."""
    seen: set[str] = set()
    foreign: list[str] = []
    due = ["localllm.engine.build"]
    while due:
        module = due.pop()
        if module in seen or module not in _modules():
            continue
        seen.add(module)
        due += [module.rpartition(".")[0]] if "." in module else []
        for found in _read(module):
            if found.target:
                due.append(found.imported)
            elif found.library not in sys.stdlib_module_names:
                foreign.append(str(found))
    assert foreign == []
    assert {"localllm.engine.build", "localllm.engine", "localllm"} <= seen


def _child(code: str, *flags: str) -> str:
    """What a fresh interpreter prints, with this package on its path and maybe nothing else."""
    prelude = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    done = subprocess.run(
        [sys.executable, *flags, "-c", prelude + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded_by(code: str) -> set[str]:
    """The top-level packages that are loaded after the code, besides what Python itself loads."""
    printed = _child(code + "\nimport json; print(json.dumps(list(sys.modules)))")
    return {name.split(".")[0] for name in json.loads(printed.splitlines()[-1])}


def test_the_builder_starts_without_site_packages() -> None:
    assert _child("import localllm.engine.build; print('here')", "-I", "-S") == "here\n"


@pytest.mark.parametrize(
    "library",
    ["rich", "prompt_toolkit", "httpx", "urllib3", "filelock", "numpy", "yaml", "psutil",
     "pynvml", "huggingface_hub",
     "llama_cpp", "pygments", "markdown_it", "platformdirs", "aiohttp", "prometheus_client"],
)  # fmt: skip
def test_the_command_line_starts_without(library: str, cli_modules: set[str]) -> None:
    assert "typer" in cli_modules
    assert library not in cli_modules


@pytest.fixture(scope="module")
def cli_modules() -> set[str]:
    return _loaded_by("import localllm.cli.app")


def test_the_version_is_told_without_loading_typer_or_anything_else() -> None:
    code = "sys.argv = ['localllm', '--version']\nfrom localllm.__main__ import main\nmain()"
    assert _child(code) == f"localllm {localllm.__version__}\n"
    loaded = _loaded_by(code)
    foreign = loaded - _loaded_by("") - sys.stdlib_module_names - {"localllm"}
    assert "localllm" in loaded
    assert foreign == set()


def test_the_known_loads_nothing_but_python() -> None:
    """No work at import: not even YAML, which profiles reads only when it is asked to."""
    code = "\n".join(f"import localllm.{name}" for name in sorted(KNOWN))
    foreign = _loaded_by(code) - _loaded_by("") - sys.stdlib_module_names - {"localllm"}
    assert foreign == set()
