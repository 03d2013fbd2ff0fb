"""llama-server as a child: it comes up, answers, goes, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localllm import paths
from localllm.completion import Delta, Message, Sampling, Usage
from localllm.engine.client import HttpChatModel
from localllm.engine.guarded import sweep
from localllm.engine.locate import Tools
from localllm.engine.run import open_chat_model
from localllm.engine.server import LlamaServer
from localllm.errors import ContextFullError, EngineError, IntegrityError, LocalllmError
from localllm.plan import Model, Plan
from tests.conftest import wait_until

HELLO = [Message("user", "hello")]

#: A process that starts an engine and then does nothing, so that it can be killed at any moment.
PARENT = """
import sys, time
from localllm.engine.locate import require_tools
from localllm.engine.server import LlamaServer
from localllm.plan import Model, Plan
plan = Plan(Model("tiny", sys.argv[1]), n_ctx=512)
with LlamaServer(require_tools(), plan):
    print("ready", flush=True)
    time.sleep(600)
"""


def engines_of(home: Path) -> list[psutil.Process]:
    """Living processes, guardians and engines, that were started from this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(
                str(home) in word for word in process.cmdline()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.pid != os.getpid()]


def run_folders(home: Path) -> list[Path]:
    return list((home / "run").glob("engine-*"))


def test_streams_a_reply_and_ends_with_its_usage(tools: Tools, tiny_plan: Plan) -> None:
    with LlamaServer(tools, tiny_plan) as server:
        model = HttpChatModel(server.require_endpoint(), "tiny", 1024)
        items = list(model.stream(HELLO, Sampling(max_tokens=12, seed=1)))
    assert all(isinstance(item, Delta) for item in items[:-1])
    usage = items[-1]
    assert isinstance(usage, Usage)
    assert usage.finish_reason == "length"
    assert usage.n_tokens == 12
    assert usage.n_prompt_tokens
    assert usage.ttft_seconds
    assert usage.decode_tokens_per_second


def test_answers_only_to_its_own_key(tools: Tools, tiny_plan: Plan) -> None:
    from localllm.engine.endpoint import Endpoint
    from localllm.errors import AccessError

    with LlamaServer(tools, tiny_plan) as server:
        real = server.require_endpoint()
        stranger = HttpChatModel(Endpoint(real.base_url, real.socket_path, "guess"), "tiny")
        with pytest.raises(AccessError):
            list(stranger.stream(HELLO, Sampling(max_tokens=1)))
        assert server.pid is not None
        words = psutil.Process(server.pid).cmdline()
        assert real.api_key is not None
        assert not any(real.api_key in word for word in words)


@pytest.mark.skipif(sys.platform == "win32", reason="unix sockets and modes")
def test_its_socket_lies_in_a_folder_that_only_the_owner_enters(
    tools: Tools, tiny_plan: Plan
) -> None:
    with LlamaServer(tools, tiny_plan) as server:
        path = server.require_endpoint().socket_path
        assert path is not None
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700


def test_leaves_no_process_and_no_folder_after_the_block(
    tools: Tools, tiny_plan: Plan, home: Path
) -> None:
    with LlamaServer(tools, tiny_plan):
        assert engines_of(home)
    assert engines_of(home) == []
    assert run_folders(home) == []


def test_a_reply_that_is_closed_early_frees_the_slot(tools: Tools, tiny_path: Path) -> None:
    plan = Plan(Model("tiny", str(tiny_path)), n_ctx=2048)
    with open_chat_model(plan) as model:
        reply = model.stream(HELLO, Sampling())
        next(reply)
        reply.close()  # type: ignore[attr-defined]
        after = list(model.stream(HELLO, Sampling(max_tokens=3)))
    assert isinstance(after[-1], Usage)
    assert after[-1].n_tokens == 3


def test_a_conversation_longer_than_the_context_is_told_as_such(
    tools: Tools, tiny_plan: Plan
) -> None:
    with (
        open_chat_model(tiny_plan) as model,
        pytest.raises(ContextFullError, match="context"),
    ):
        list(model.stream([Message("user", "word " * 4000)], Sampling()))


def test_an_engine_that_dies_in_mid_reply_is_an_engine_error(tools: Tools, tiny_path: Path) -> None:
    # So long that it cannot be over before the kill, however late that comes.
    plan = Plan(Model("tiny", str(tiny_path)), n_ctx=65536)
    with LlamaServer(tools, plan) as server:
        model = HttpChatModel(server.require_endpoint(), "tiny", None, server.explain_death)
        reply = model.stream(HELLO, Sampling())
        next(reply)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="SIGKILL"):
            list(reply)


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"", id="empty"), pytest.param(b"not a model at all" * 100, id="text")],
)
def test_a_file_that_is_no_model_is_an_error_not_a_hang(
    tools: Tools, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with (
        pytest.raises(IntegrityError, match=r"bad\.gguf is no sound GGUF"),
        LlamaServer(tools, Plan(Model("bad", str(path)), n_ctx=512)),
    ):
        pass


def test_a_truncated_model_is_told_as_damaged(
    tools: Tools, tmp_path: Path, tiny_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:-4096])
    with (
        pytest.raises(IntegrityError, match="cut short"),
        LlamaServer(tools, Plan(Model("cut", str(path)), n_ctx=512)),
    ):
        pass


def test_an_unknown_argument_is_named(tools: Tools, tiny_plan: Plan) -> None:
    with (
        pytest.raises(LocalllmError, match="--no-such-argument"),
        LlamaServer(tools, tiny_plan, extra_argv=["--no-such-argument"]),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_fifty_parents_killed_at_random_moments_leave_no_orphan_and_no_socket(
    tiny_path: Path, home: Path
) -> None:
    rng = random.Random(20261120)
    ready = 0
    for _ in range(50):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tiny_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(paths.__file__).parents[1])},
        )
        assert parent.stdout is not None
        if rng.random() < 0.3:  # some die after the engine is up, most on the way
            assert parent.stdout.readline() == b"ready\n"
            ready += 1
        else:
            with_delay = rng.uniform(0.0, 0.5)
            _wait_readable(parent, with_delay)
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert ready
    wait_until(lambda: engines_of(home) == [], "the last engine to end")
    wait_until(lambda: run_folders(home) == [] or _only_unborn(home), "the run folders to go")
    sweep()
    assert run_folders(home) == []


def _wait_readable(parent: subprocess.Popen[bytes], seconds: float) -> None:
    import select

    select.select([parent.stdout], [], [], seconds)


def _only_unborn(home: Path) -> bool:
    """Folders whose parent died before it had started a guardian; the next start sweeps them."""
    return all(not list(folder.iterdir()) for folder in run_folders(home))


def test_the_sweep_ends_an_engine_whose_parent_and_guardian_were_killed_together(
    home: Path,
) -> None:
    # As after an out-of-memory kill of the whole session: nobody was left to clean up.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = paths.private_folder(home / "run") / f"engine-{dead.pid}-00000000"
    folder.mkdir()
    left_over = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", str(folder / "llama.sock")]
    )
    (folder / "pids.json").write_text(f"[{dead.pid}, {left_over.pid}]")
    sweep()
    assert left_over.wait(60) == -signal.SIGKILL
    assert run_folders(home) == []


def test_the_sweep_spares_a_stranger_with_a_recycled_process_id(home: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = paths.private_folder(home / "run") / f"engine-{dead.pid}-00000000"
    folder.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "pids.json").write_text(f"[{stranger.pid}]")
    sweep()
    try:
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert run_folders(home) == []
