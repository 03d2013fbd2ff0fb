"""What nobody may find: clients' keys, the secrets of llama-servers, prompts. Looked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.gateway.serving import Served, served

FROM_FILE, NAMELESS = "file-key-5f1d0c9a7b4c38", "nameless-key-71c2ab09d1e84f"
FROM_ENVIRONMENT = "env-key-0a1b2c3d4e5f6071"
KEYS = (FROM_FILE, NAMELESS, FROM_ENVIRONMENT)
WRONG = "wrong-key-99887766554433"
PROMPT = "xylophonequartz"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that has answered, refused and failed, and whose child died once."""
    folder = tmp_path_factory.mktemp("config")
    keys, config = folder / "keys", folder / "serve.yaml"
    keys.write_text(f"alice {FROM_FILE}\n{NAMELESS}\n")
    keys.chmod(0o644)  # it warns of that, and says where
    config.write_text(
        f"api_key_file: {keys}\nperformance_seconds: 0.2\nlimits: {{requests_per_minute: 60}}\n"
    )
    environment = {"LLAMA_API_KEY": FROM_ENVIRONMENT}
    with served("demo", "--config", str(config), environment=environment) as one:
        _use(one)
        (child,) = one.children
        child.kill()
        wait_until(lambda: one.children not in ([], [child]), "another child")
        one.wait_ready()
        _use(one)
        one.signal(signal.SIGHUP)
        wait_until(lambda: "settings read again" in one.output, "the settings to be read")
        wait_until(lambda: '"requests":' in one.log("performance"), "a line of figures")
        yield one


def _use(gateway: Served) -> None:
    with gateway.client() as client:
        for key in (*KEYS, WRONG):
            for header in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}):
                _ask(client, header)


def _ask(client: httpx.Client, header: dict[str, str]) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    for path, body in (
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 2, "stream": True}),
        ("/v1/chat/completions", {"messages": PROMPT}),
        ("/v1/completions", {"prompt": PROMPT, "max_tokens": 1}),
        ("/tokenize", {"content": PROMPT}),
        (f"/v1/embeddings?api_key={header.get('X-Api-Key', '')}", {"input": PROMPT}),
    ):
        client.post(path, json=body, headers=header)


@pytest.fixture
def secrets(gateway: Served) -> tuple[str, ...]:
    """The clients' keys, and what opens the llama-servers."""
    return (*KEYS, WRONG, *(child.environ()["LLAMA_API_KEY"] for child in gateway.children))


def assert_without(text: str, secrets: tuple[str, ...]) -> None:
    assert text
    assert not [secret for secret in secrets if secret in text]


def test_no_command_line_holds_a_secret(gateway: Served, secrets: tuple[str, ...]) -> None:
    own = psutil.Process(gateway.process.pid)
    family = [own, *own.children(recursive=True)]
    assert len(family) >= 3, "the gateway, a guardian and a llama-server"
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        assert not [secret for secret in secrets if secret in line], process
    assert all(process.cmdline() for process in family)


def test_no_llama_server_knows_a_clients_key(gateway: Served) -> None:
    for process in psutil.Process(gateway.process.pid).children(recursive=True):
        values = " ".join(process.environ().values())
        assert not [key for key in KEYS if key in values], process


def test_the_logs_hold_no_secret(gateway: Served, secrets: tuple[str, ...]) -> None:
    for name in ("access", "error", "performance"):
        assert_without(gateway.log(name), secrets)
    assert_without(gateway.output, secrets)


def test_what_llama_server_prints_holds_no_clients_key(gateway: Served) -> None:
    (printed,) = gateway.home.rglob("engine.log")
    assert_without(printed.read_text(errors="replace"), KEYS)


def test_the_logs_name_the_keys(gateway: Served) -> None:
    lines = [json.loads(line) for line in gateway.log("access").splitlines()]
    assert {line["key"] for line in lines} == {"alice", "key-2", "arg-1", ""}
    assert {line["key"] for line in lines if line["status"] == 401} == {""}


@pytest.mark.parametrize("path", ["/metrics", "/props", "/v1/models", "/slots", "/openapi.json"])
def test_no_answer_holds_a_secret(gateway: Served, secrets: tuple[str, ...], path: str) -> None:
    with gateway.client(headers={"Authorization": f"Bearer {FROM_FILE}"}) as client:
        answer = client.get(path)
    assert answer.status_code == 200
    assert_without(answer.text + str(answer.headers), secrets)
    assert PROMPT not in answer.text


def test_no_refusal_repeats_a_secret(gateway: Served, secrets: tuple[str, ...]) -> None:
    with gateway.client() as client:
        for answer in (
            client.get("/v1/models", headers={"Authorization": f"Bearer {WRONG}"}),
            client.get("/v1/models", headers={"Authorization": f"Bearer {FROM_FILE}", "Host": "x"}),
            client.post("/v1/messages", headers={"X-Api-Key": WRONG}, json={}),
        ):
            assert answer.status_code >= 400
            assert_without(answer.text + str(answer.headers), secrets)


def test_what_it_tells_of_itself_holds_no_secret(gateway: Served, secrets: tuple[str, ...]) -> None:
    assert_without(json.dumps(gateway.status.to_json()), secrets)
    assert_without(gateway.record_path.read_text(), secrets)
    for argv in (["ps", "--json"], ["ps"], ["top", "--once", "--json"], ["logs", "--error"]):
        assert_without(_localllm(gateway.home, *argv), secrets)


def test_nothing_is_anybodys_to_read(gateway: Served) -> None:
    logs = list(gateway.record.log_dir.iterdir())
    assert len(logs) >= 3
    for path in (*logs, gateway.record_path, Path(gateway.record.control_socket or "")):
        assert path.stat().st_mode & 0o777 == 0o600, path
    for folder in (gateway.record.log_dir, gateway.record_path.parent):
        assert folder.stat().st_mode & 0o077 == 0, folder


def test_prompts_are_not_written_down(gateway: Served) -> None:
    for name in ("access", "error", "performance"):
        assert PROMPT not in gateway.log(name)
    assert PROMPT not in gateway.output
    for path in gateway.home.rglob("*"):
        if path.is_file():
            assert PROMPT.encode() not in path.read_bytes(), path


def test_prompts_are_written_down_where_that_is_asked_for(home: Path) -> None:
    config = home / "serve.yaml"
    config.write_text("log_prompts: true\n")
    with served("demo", "--config", str(config)) as one:
        with one.client() as client:
            _ask(client, {"Authorization": f"Bearer {FROM_FILE}"})
        wait_until(lambda: PROMPT in one.log("access"), "the prompt")
        assert FROM_FILE not in one.log("access")
        assert (one.record.log_dir / "access.log").stat().st_mode & 0o777 == 0o600


def test_a_key_after_the_dashes_goes_to_no_record_and_no_child() -> None:
    key = "dashes-key-123456789abc"
    with served("demo", "--", "--api-key", key) as one:
        assert "every user of this machine can read a key in a command line" in one.output
        assert key not in one.output
        assert key not in one.record_path.read_text()
        assert key not in _localllm(one.home, "ps", "--json")
        for process in psutil.Process(one.process.pid).children(recursive=True):
            assert key not in " ".join((*process.cmdline(), *process.environ().values()))
        with one.client() as client:
            assert client.get("/props").status_code == 401
            mine = client.get("/props", headers={"Authorization": f"Bearer {key}"})
            assert mine.status_code == 200
            assert key not in mine.text


def test_a_systemd_unit_holds_no_secret(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice {FROM_FILE}\n")
    unit = _localllm(
        tmp_path, "serve", "demo", "--api-key-file", str(keys), "--print-systemd",
        HF_TOKEN="hf_0123456789",
    )  # fmt: skip
    assert str(keys) in unit
    assert_without(unit, (*KEYS, "hf_0123456789"))


def _localllm(home: Path, *argv: str, **environment: str) -> str:
    """What it prints, with the gateway's folders."""
    done = subprocess.run(
        [sys.executable, "-m", "localllm", *argv],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "LOCALLLM_HOME": str(home), **environment},
        check=True,
    )
    return done.stdout + done.stderr
