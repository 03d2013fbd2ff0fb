"""The commands as a person runs them: plan, doctor, serve, version and help."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllm import __version__, gguf
from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until
from tests.ggufs import Llama


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(model: Path, *argv: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`localllm serve` in a child, until it answers; ended by SIGTERM."""
    port = free_port()
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "localllm",
            "serve",
            str(model),
            "--direct",
            "--port",
            str(port),
            *argv,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        assert child.poll() is None, child.stderr and child.stderr.read()
        try:
            with urllib.request.urlopen(f"{url}/health") as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        wait_until(healthy, "llama-server")
        yield child, url
    finally:
        child.kill()
        child.wait()
        assert child.stderr is not None
        child.stderr.close()


def post(url: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_the_version_is_one_line() -> None:
    done = run_localllm("--version")
    assert (done.returncode, done.stdout) == (0, f"localllm {__version__}\n")


@pytest.mark.parametrize("argv", [[], ["chat"], ["serve"], ["doctor"], ["plan"], ["engine"]])
def test_every_command_helps(argv: list[str]) -> None:
    done = run_localllm(*argv, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert done.stderr == ""


def test_doctor_names_the_machine_and_the_engine() -> None:
    done = run_localllm("doctor")
    assert done.returncode in (0, 1), done.stdout
    assert "engine" in done.stdout
    assert "engine.runs" in done.stdout


def test_doctor_prints_one_json_document_of_the_agreed_shape() -> None:
    document = json.loads(run_localllm("doctor", "--json").stdout)
    assert document["schema_version"] == 1
    assert document["hardware"]["cpu"]["n_usable"] >= 1
    assert document["hardware"]["memory"]["total_bytes"] > 0
    assert document["engine"]["backend"]
    for finding in document["findings"]:
        assert finding.keys() == {"level", "code", "message", "fix"}
        assert finding["level"] in ("ok", "warn", "fail")
        assert finding["level"] == "ok" or finding["fix"]


def test_doctor_without_an_engine_says_what_to_do(tmp_path: Path) -> None:
    # An interpreter that sees our package and nothing else, as after `pip install --no-deps`.
    done = run_localllm("doctor", "--json", LOCALLLM_ENGINE_DIR=str(tmp_path))
    document = json.loads(done.stdout)
    codes = {finding["code"]: finding for finding in document["findings"]}
    assert codes["engine.tools-missing"]["fix"] == "localllm engine install"
    assert done.returncode == 1


def test_a_report_is_written_redacted_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "zaphod"))
    monkeypatch.setenv("LOCALLLM_HOME", str(tmp_path / "zaphod" / "llm"))
    monkeypatch.setenv("PYTHONPATH", str(Path(gguf.__file__).parents[1]))
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for _ in range(2):
        run_localllm("doctor", "--report")
    first, second = sorted(Path().glob("*.md"))
    assert (first.name, second.name) == ("localllm-report-2.md", "localllm-report.md")
    text = second.read_text()
    assert "HF_TOKEN" in text
    assert "hf_abcdefghijklmnop" not in text
    assert "zaphod" not in text
    assert "~/llm" in text


def test_a_plan_is_one_json_document_of_the_agreed_shape(tiny_path: Path) -> None:
    document = json.loads(run_localllm("plan", str(tiny_path), "--json", "--ctx", "1024").stdout)
    assert document["schema_version"] == 1
    assert document["model"]["architecture"] == "llama"
    assert document["chosen"]["n_ctx"] == 1024
    assert document["argv"][:2] == ["llama-server", "--model"]
    assert [row["device"] for row in document["memory"]] == ["Host"]
    assert {"field", "value", "because", "source"} == document["reasons"][0].keys()


def test_a_variable_stands_for_a_flag_and_the_flag_wins(tiny_path: Path) -> None:
    by_variable = run_localllm("plan", str(tiny_path), "--json", LOCALLLM_CTX="768")
    assert json.loads(by_variable.stdout)["chosen"]["n_ctx"] == 768
    both = run_localllm("plan", str(tiny_path), "--json", "--ctx", "512", LOCALLLM_CTX="768")
    assert json.loads(both.stdout)["chosen"]["n_ctx"] == 512


def test_a_plan_reads_well(tiny_path: Path) -> None:
    done = run_localllm("plan", str(tiny_path))
    assert done.returncode == 0
    assert re.search(r"Host .* MiB", done.stdout)
    assert "no accelerator was found" in done.stdout or "fit" in done.stdout
    assert "llama-server --model" in done.stdout


def test_serve_answers_as_llama_server_does(tiny_path: Path) -> None:
    with serving(tiny_path) as (child, url):
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        status, answer = post(f"{url}/v1/chat/completions", body)
        assert status == 200
        assert answer["usage"]["completion_tokens"] == 4
        # The process that was started is llama-server now: nothing stands between.
        assert "llama-server" in psutil.Process(child.pid).cmdline()[0]


def test_serve_passes_on_what_stands_behind_the_dashes(tiny_path: Path) -> None:
    with serving(tiny_path, "--parallel", "3", "--", "--alias", "other") as (_, url):
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "other"
        with urllib.request.urlopen(f"{url}/slots") as answer:
            assert len(json.load(answer)) == 3


def test_serve_with_a_key_file_turns_strangers_away(tiny_path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# the team\nopen-sesame\n")
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    with serving(tiny_path, "--api-key-file", str(keys)) as (_, url):
        assert post(f"{url}/v1/chat/completions", body)[0] == 401
        known = {"Authorization": "Bearer open-sesame"}
        assert post(f"{url}/v1/chat/completions", body, **known)[0] == 200


def test_serve_direct_takes_keys_with_names_and_with_commas(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text('alice of-alice,with"quotes"\nof-nobody\n')
    monkeypatch.setenv("LLAMA_API_KEY", '"from,outside",another-one')
    with serving(tiny_path, "--api-key-file", str(keys)) as (_, url):
        for key, status in {
            'of-alice,with"quotes"': 200,
            "of-nobody": 200,
            "from,outside": 200,
            "another-one": 200,
            'alice of-alice,with"quotes"': 401,
            "of-alice": 401,
            "from": 401,
        }.items():
            body = {"prompt": "x", "n_predict": 1}
            assert post(f"{url}/completion", body, Authorization=f"Bearer {key}")[0] == status, key


def test_serve_lets_no_foreign_web_page_in(tiny_path: Path) -> None:
    with serving(tiny_path) as (_, url):
        request = urllib.request.Request(
            f"{url}/v1/models", headers={"Origin": "https://evil.example"}
        )
        with urllib.request.urlopen(request) as answer:
            allowed = answer.headers.get("Access-Control-Allow-Origin")
        assert allowed != "*"
        assert allowed != "https://evil.example"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_ends_on_sigterm(tiny_path: Path) -> None:
    with serving(tiny_path) as (child, _):
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) is not None
        assert not psutil.pid_exists(child.pid) or child.poll() is not None


def test_a_reader_that_has_enough_is_no_error(tiny_path: Path) -> None:
    command = f'"{sys.executable}" -m localllm plan "{tiny_path}" --json | head -c 1'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_chat_talks_to_another_server_by_its_address(tiny_path: Path) -> None:
    with serving(tiny_path) as (_, url):
        done = run_localllm("chat", "-p", "hi", "--url", f"{url}/v1", "-n", "5", "--stats")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "5 tokens" in done.stderr


def test_a_pipe_that_stays_open_is_told_and_waited_for(tiny_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "localllm", "chat", str(tiny_path), "-p", "hi", "-n", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    assert "reading standard input" in child.stderr.readline()
    _, rest = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 0, rest


def test_the_last_model_is_taken_up_again(tmp_path: Path) -> None:
    path = Llama().write(tmp_path / "mine.gguf")
    first = run_localllm("chat", "-p", "hi", "-n", "2")
    assert "the demo" in first.stderr
    run_localllm("chat", str(path), "-p", "hi", "-n", "2")
    assert "mine.gguf" in run_localllm("chat", "-p", "hi", "-n", "2").stderr
    path.unlink()
    assert "the demo" in run_localllm("chat", "-p", "hi", "-n", "2").stderr


def test_a_session_is_kept_between_runs_for_its_owner_alone(home: Path) -> None:
    for text in ("one", "two"):
        done = run_localllm("chat", "demo", "-p", text, "-n", "8", "--session", "diary")
        assert done.returncode == 0, done.stderr
    (kept,) = (home / "data" / "sessions").iterdir()
    said = [turn["content"] for turn in json.loads(kept.read_text())["messages"]]
    assert said[0::2] == ["one", "two"]
    if os.name == "posix":
        assert kept.stat().st_mode & 0o777 == 0o600
