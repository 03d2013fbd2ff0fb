"""Bad input gets one sentence, a hint and the right exit code, and never a traceback."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from localllm.cli import prepare
from tests.conftest import PATIENCE_SECONDS, run_localllm
from tests.ggufs import Llama, header_bytes, string, value, write_gguf

USAGE, MISSING, DENIED, DAMAGED, NO_ROOM, NO_ENGINE = 2, 3, 4, 6, 7, 9


def assert_told(
    done: subprocess.CompletedProcess[str], exit_code: int, *words: str, hint: bool = True
) -> None:
    """One sentence on standard error, an empty line, a hint; nothing on standard output."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("error: "))
    if hint:
        assert lines[start + 1] == ""
        assert lines[start + 2].startswith("hint: ")
    for word in words:
        assert word in lines[start], done.stderr


def chat(path: Path | str, *argv: str) -> subprocess.CompletedProcess[str]:
    return run_localllm("chat", str(path), "-p", "hello", *argv)


def test_a_missing_file(tmp_path: Path) -> None:
    assert_told(chat(tmp_path / "none.gguf"), MISSING, "none.gguf")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "models.gguf"
    folder.mkdir()
    assert_told(chat(folder), MISSING, "there is no GGUF model in", "models.gguf")


def test_a_folder_with_different_models(tmp_path: Path, tiny_path: Path) -> None:
    for name in ("alpha-Q8_0.gguf", "beta-Q8_0.gguf"):
        (tmp_path / name).write_bytes(tiny_path.read_bytes())
    assert_told(chat(tmp_path), USAGE, "2 different models", "alpha-Q8_0.gguf", "beta-Q8_0.gguf")


def test_a_folder_of_damaged_models_says_what_is_wrong_with_one(tmp_path: Path) -> None:
    (tmp_path / "m-Q8_0.gguf").write_bytes(b"GGUF")
    (tmp_path / "m-Q4_0.gguf").write_bytes(b"GGUF")
    assert_told(chat(tmp_path), DAMAGED, ".gguf", "past the end", hint=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"Dear reader,\nthis is a letter.\n" * 20, "begins with", id="text"),
        pytest.param(b"<!DOCTYPE html><html>", "a web page", id="web page"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", id="LFS pointer"),
        pytest.param(b"GGUF", "its header reaches past the end", id="magic alone"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "tensors", id="absurd tensor count"
        ),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60), "keys", id="absurd key count"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62),
            "a metadata key",
            id="absurd key length",
        ),
        pytest.param(
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, 1)
            + string("a")
            + struct.pack("<IIQ", 9, 4, 1 << 40),
            "elements",
            id="absurd array",
        ),
    ],
)
def test_a_file_that_is_no_sound_gguf(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    done = chat(path)
    assert done.returncode == DAMAGED
    assert_told(done, DAMAGED, "bad.gguf", words, hint="hint:" in done.stderr)


def test_a_truncated_gguf(tmp_path: Path, tiny_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:-100_000])
    assert_told(chat(path), DAMAGED, "cut short")


def test_a_base_model_without_a_chat_template(tmp_path: Path) -> None:
    path = Llama(chat_template=None).write(tmp_path / "base.gguf")
    done = chat(path)
    assert_told(done, 1, "not a chat model")
    assert "--chat-template" in done.stderr


def test_a_base_model_chats_with_a_named_template(tmp_path: Path) -> None:
    path = Llama(chat_template=None).write(tmp_path / "base.gguf")
    done = chat(path, "--chat-template", "chatml", "-n", "3")
    assert done.returncode == 0, done.stderr


def test_an_embedding_model(tmp_path: Path) -> None:
    shape = Llama()
    keys = {**shape.metadata(), "llama.pooling_type": 1, "llama.attention.causal": False}
    path = write_gguf(tmp_path / "embedding.gguf", keys, shape.tensors())
    assert_told(chat(path), 1, "not a chat model")


def test_a_projector(tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(header_bytes({"general.architecture": "clip"}, []))
    assert_told(chat(path), 1, "mmproj")


def test_an_architecture_that_the_engine_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "alien.gguf"
    keys = {"general.architecture": "alien", "tokenizer.ggml.model": "gpt2"}
    path.write_bytes(header_bytes({**keys, "tokenizer.chat_template": "x"}, []))
    assert_told(chat(path), NO_ENGINE, "'alien'")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00002.gguf"
    path.write_bytes(header_bytes({"general.architecture": "llama", "split.count": 2}, []))
    assert_told(chat(path), MISSING, "model-00002-of-00002.gguf")


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="POSIX permissions")
def test_an_unreadable_file(tmp_path: Path, tiny_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny_path.read_bytes())
    path.chmod(0)
    # Root reads everything: become nobody for this one read.
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from localllm.hub import localfile\n"
        "from localllm.errors import AccessError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: localfile.read_header(Path(sys.argv[1]))\n"
        "except AccessError as error: print(error.exit_code, error.message)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"{DENIED} "), done.stderr
    assert "may not be read" in done.stdout


def test_a_name_that_is_on_no_disk() -> None:
    assert_told(chat("qwen3:8b"), MISSING, "qwen3:8b")


def test_a_name_that_can_mean_nothing() -> None:
    assert_told(chat("what is this?"), USAGE, "not a model reference")


def test_a_file_named_without_its_folder_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "demo2").write_bytes(b"GGUF")
    done = subprocess.run(
        [sys.executable, "-m", "localllm", "chat", "demo2", "-p", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parents[2])},
        check=False,
    )
    assert done.returncode == MISSING
    assert "./demo2" in done.stderr


def test_an_unknown_command() -> None:
    assert_told(run_localllm("chta", "demo"), USAGE, "chta")


def test_an_unknown_flag() -> None:
    assert_told(run_localllm("chat", "demo", "--no-such-flag"), USAGE, "--no-such-flag")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(["--ctx", "lots"], "--ctx", id="not a number"),
        pytest.param(["--ctx", "0"], "--ctx", id="zero"),
        pytest.param(["--kv", "q9_9"], "q9_9", id="KV type"),
        pytest.param(["--reasoning", "maybe"], "maybe", id="reasoning"),
        pytest.param(["--session", "../../etc/passwd"], "etc", id="session name"),
        pytest.param(["--url", "ftp://x"], "ftp://x", id="scheme"),
    ],
)
def test_a_value_that_cannot_be_meant(argv: list[str], words: str) -> None:
    done = run_localllm("chat", "demo", "-p", "x", *argv)
    assert_told(done, USAGE, words, hint="hint:" in done.stderr)


def test_an_empty_prompt() -> None:
    assert_told(run_localllm("chat", "demo", "-p", "  "), USAGE, "no prompt")


def test_a_context_that_does_not_fit_says_by_how_much_and_what_would(tmp_path: Path) -> None:
    shape = Llama(n_layers=64, n_embd=256, n_head=4, n_head_kv=4, n_ctx_train=1 << 20)
    path = shape.write(tmp_path / "deep.gguf")
    done = chat(path, "--ctx", str(1 << 22))
    assert_told(done, NO_ROOM, "are missing")
    assert "--ctx " in done.stderr


def test_nobody_answering_at_the_url() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run_localllm("chat", "-p", "x", "--url", f"http://127.0.0.1:{port}")
    assert_told(done, 5, str(port))


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_localllm("serve", "demo", "--direct", "--port", str(port))
    assert_told(done, 1, str(port))


def test_an_open_address_without_a_key() -> None:
    done = run_localllm("serve", "demo", "--direct", "--host", "0.0.0.0")
    assert_told(done, USAGE, "0.0.0.0")


def test_a_key_file_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# none yet\n")
    done = run_localllm("serve", "demo", "--direct", "--api-key-file", str(path))
    assert_told(done, USAGE, "holds no key")


def test_no_engine_at_all(tmp_path: Path) -> None:
    done = run_localllm("serve", "demo", "--direct", LOCALLLM_ENGINE_DIR=str(tmp_path))
    assert_told(done, NO_ENGINE, "LOCALLLM_ENGINE_DIR", str(tmp_path))


def test_a_policy_with_a_mistake_names_the_line(home: Path) -> None:
    (home / "config").mkdir()
    (home / "config" / "policy.yaml").write_text("n_batch: 1024\nn_bacth: 1\n")
    done = chat("demo")
    assert_told(done, USAGE, "line 2", "n_bacth")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_localllm(
        "chat", "demo", "-p", "hi", "--session", "s", LOCALLLM_HOME=str(tmp_path / "file")
    )
    assert_told(done, 8, str(tmp_path / "file"))


def test_a_bug_is_called_one_and_shown_in_full_only_when_asked(tmp_path: Path) -> None:
    broken = "import localllm.cli.prepare as p\np.prepare = lambda *a, **k: 1 / 0\n"
    broken += "import sys\nfrom localllm.cli.app import run\nsys.exit(run(sys.argv[1:]))\n"

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", broken, *argv, "plan", "demo"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    plain, full = run(), run("--debug")
    assert_told(plain, 1, "bug in localllm", "ZeroDivisionError")
    assert "Traceback" in full.stderr
    assert full.returncode == 1


def test_debug_shows_the_engines_log_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "alien.gguf"
    keys = {"general.architecture": "alien", "tokenizer.ggml.model": "gpt2"}
    path.write_bytes(header_bytes({**keys, "tokenizer.chat_template": "x"}, []))
    for argv in (("--debug", "plan", str(path)), ("plan", str(path), "--debug")):
        done = run_localllm(*argv)
        assert done.returncode == NO_ENGINE
        assert "Traceback" in done.stderr
        assert "llama_model_load: error loading model" in done.stderr


def test_values_are_typed_metadata() -> None:
    """The helpers above write what they claim to."""
    assert value("x") == struct.pack("<IQ", 8, 1) + b"x"
