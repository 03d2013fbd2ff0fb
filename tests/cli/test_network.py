"""`localllm doctor --network` as a person runs it: in a pipe, as JSON, on a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import PATIENCE_SECONDS, run_localllm
from tests.loopback_hub import APIS, LoopbackHub, ServerError, TooManyRequests

USAGE, NO_ACCESS, BROKEN = 2, 4, 5
PUBLIC, PRIVATE, GATED = "org/Public-GGUF", "org/Private-GGUF", "org/Gated-GGUF"
FILES = {"m-Q8_0.gguf": bytes(2**20)}
HOPS = [
    "settings", "name", "connection", "api", "resolve",
    "name", "connection", "first-byte", "throughput",
]  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        running.add_repo(PUBLIC, FILES)
        running.add_repo(PRIVATE, FILES, private=True)
        running.add_repo(GATED, FILES, gated="manual")
        for name in list(os.environ):
            if name.upper().endswith("_PROXY") or name.startswith(("HF_", "HUGGING_FACE_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def lines_of(printed: str) -> list[list[str]]:
    """Mark, or nothing, and the words behind it, of each line that begins a hop."""
    return [line.split() for line in printed.splitlines() if re.match(r"(ok|warn|FAIL)? ", line)]


def test_the_way_to_a_private_model_is_printed_and_its_token_never(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    done = run_localllm("doctor", "--network", PRIVATE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [words[:2] for words in lines_of(done.stdout)] == [["ok", hop] for hop in HOPS]
    assert "token from HF_TOKEN" in done.stdout
    assert f"{PRIVATE} is there, private, 1 GGUF among 1 files" in done.stdout
    assert done.stderr == ""
    assert hub.token not in done.stdout
    assert hub.leaks == []


def test_a_token_from_a_file_is_told_by_its_path(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(hub.token)
    done = run_localllm("doctor", "--network", PRIVATE, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = json.loads(done.stdout)["hops"][0]
    assert settings["facts"]["token_from"] == str(tmp_path / "token")
    assert hub.token not in done.stdout


def test_the_document_has_every_hop_and_no_token(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.misbehave(ServerError(), on={"cdn"})
    done = run_localllm("doctor", "--network", PRIVATE, "--json")
    assert done.returncode == BROKEN
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert [each["hop"] for each in document["hops"]] == HOPS
    levels = [each["level"] for each in document["hops"]]
    assert levels == ["ok"] * 7 + ["fail", "not-reached"]
    assert len(document["findings"]) == 8
    assert document["findings"][-1]["code"] == "network.first-byte"
    assert document["hops"][3]["facts"]["is_private"] is True
    assert hub.token not in done.stdout + done.stderr


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["plain", "debug"])
def test_a_refusal_for_want_of_access_has_a_status_of_its_own(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, debug: list[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    done = run_localllm("doctor", "--network", GATED, *debug)
    assert done.returncode == NO_ACCESS
    failed = next(words for words in lines_of(done.stdout) if words[0] == "FAIL")
    assert failed[1] == "resolve"
    assert "consent there with the account of your token" in done.stdout
    assert hub.token not in done.stdout + done.stderr


def test_the_hops_behind_the_one_that_fails_are_not_reached(hub: LoopbackHub) -> None:
    hub.misbehave(TooManyRequests(wait_seconds=9), on=APIS)
    done = run_localllm("doctor", "--network", PUBLIC)
    assert done.returncode == BROKEN
    lines = lines_of(done.stdout)
    assert ["FAIL", "api"] in [words[:2] for words in lines]
    assert lines[-3:] == [
        [hop, "not", "reached"] for hop in ("resolve", "first-byte", "throughput")
    ]
    assert "it asks to wait 9.0 s" in done.stdout


@pytest.mark.parametrize("ref", ["demo", "./model.gguf"])
def test_what_is_not_on_the_network_is_a_mistake(ref: str) -> None:
    done = run_localllm("doctor", "--network", ref)
    assert done.returncode == USAGE
    assert ref in done.stderr


def test_a_report_of_the_network_is_refused() -> None:
    done = run_localllm("doctor", "--network", PUBLIC, "--report")
    assert done.returncode == USAGE
    assert "--report" in done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_a_long_message_stays_in_its_column(hub: LoopbackHub, columns: int) -> None:
    hub.misbehave(ServerError(), on={"cdn"})
    child = pexpect.spawn(
        sys.executable,
        ["-m", "localllm", "doctor", "--network", PUBLIC],
        env={**os.environ, "TERM": "dumb"},
        dimensions=(40, columns),
        timeout=PATIENCE_SECONDS,
        encoding="utf-8",
    )
    child.expect(pexpect.EOF)
    child.close()
    lines = child.before.splitlines()
    assert child.exitstatus == BROKEN
    assert max(map(len, lines)) <= columns
    begun = [line for line in lines if line[:2].strip()]
    assert len(begun) == len(HOPS) - 1
    column = begun[0].index("127.0.0.1")
    assert any(line[:column].strip() == "" for line in lines)
    assert all(line[column - 1] == " " != line[column] for line in lines if line.strip())
