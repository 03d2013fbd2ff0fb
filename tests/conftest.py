"""What every test stands on: folders of its own, a small real model, the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localllm import demo
from localllm.engine.locate import Tools, require_tools
from localllm.plan import Model, Plan
from tests.ggufs import Llama

#: Settings of a person's that would reach into a test.
_FOREIGN = ("LLAMA_", "LOCALLLM_", "HF_", "HUGGINGFACE_", "MODELSCOPE_", "OLLAMA_", "TRANSFORMERS_")
#: How long anything may take before a test gives up: far beyond what a loaded machine needs.
PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders of its own: no test sees the person's models, settings, tokens or keys.

    Short, because unix sockets lie under it.
    """
    with tempfile.TemporaryDirectory(prefix="ll-") as folder:
        yield _use_home(Path(folder), monkeypatch)


def _use_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCALLLM_HOME", str(folder))
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and name != "LOCALLLM_HOME":
            monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.delenv(spelling, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    # Nobody listens there: a test that wants a hub brings one (tests/loopback_hub).
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:1")
    return folder


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The engine that install.sh built into this environment."""
    return require_tools("llama-server")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of half a megabyte, with a chat template."""
    return Llama().write(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The demo model as shipped."""
    return demo.model_path()


@pytest.fixture
def tiny_plan(tiny_path: Path) -> Plan:
    """A plan for the random llama."""
    return Plan(Model("tiny", str(tiny_path), name="tiny"), n_ctx=1024)


def run_localllm(
    *argv: str, stdin: str | bytes = b"", timeout: float = PATIENCE_SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The program as a person starts it, in a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "localllm", *argv],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "100", **environment},
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition, and fails with its name when it does not come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s for {what}"
        time.sleep(0.02)
