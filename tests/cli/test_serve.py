"""`localllm serve` before anything runs: what is refused, and what it goes on without."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from localllm.cli import background, render, serve
from localllm.engine.locate import Tools
from localllm.errors import UsageError
from localllm.gateway.settings import Settings
from localllm.planner import Wishes

KEY = "sk-this-is-the-secret-key"


def order(ref: str = "demo", *extra_argv: str, direct: bool = False, **flags: Any) -> serve.Order:
    return serve.Order(
        ref, flags, None, Wishes(), "serve", extra_argv, direct, (ref, "--", *extra_argv)
    )


class _Gone(io.StringIO):
    """The standard error of a terminal that was closed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), BrokenPipeError(), ValueError("closed file")]
)
def test_work_goes_on_when_nobody_can_be_told_of_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone(error))
    render.say("it died; it is started again", who="localllm serve")


@pytest.mark.parametrize("how", [serve.background, serve.print_systemd])
class TestDetached:
    def test_llama_server_alone_is_for_the_foreground(self, how: Any) -> None:
        with pytest.raises(UsageError, match="--direct is llama-server alone, in the foreground"):
            how(order(direct=True))

    def test_keys_of_a_pipe_would_be_gone_with_the_shell(self, how: Any, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "keys")
        with pytest.raises(UsageError, match="keys is a pipe"):
            how(order(api_key_file=tmp_path / "keys"))


class TestUnit:
    @pytest.mark.parametrize("in_environment", [True, False])
    def test_it_holds_no_key(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        in_environment: bool,
    ) -> None:
        argv = () if in_environment else ("--api_key", KEY)
        if in_environment:
            monkeypatch.setenv("LLAMA_API_KEY", KEY)
        with pytest.raises(UsageError, match="a unit cannot hold keys") as raised:
            serve.print_systemd(order("demo", *argv))
        assert KEY not in f"{raised.value.message}{raised.value.hint}{capsys.readouterr()}"

    @pytest.mark.parametrize("secret", ["https://u:SECRET@h/m.gguf", "https://h/m.gguf?sig=SECRET"])
    def test_it_holds_no_secret_of_a_url(
        self, capsys: pytest.CaptureFixture[str], secret: str
    ) -> None:
        with pytest.raises(UsageError, match="secrets of a URL") as raised:
            serve.print_systemd(order(secret))
        assert "SECRET" not in f"{raised.value.message}{raised.value.hint}{capsys.readouterr()}"

    def test_a_url_without_one_may_stand_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        serve.print_systemd(order("https://Hub.example/m.gguf"))
        assert "https://Hub.example/m.gguf" in capsys.readouterr().out


def test_what_is_told_of_a_start_in_the_background_has_no_token_of_the_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hints: list[str] = []
    monkeypatch.setattr(background, "start_background", lambda _, hint: hints.append(hint))
    serve.background(order("https://h/m.gguf?token=SECRET"))
    assert hints == ["m"]


def test_a_unix_socket_has_no_tls() -> None:
    settings = Settings(host="/tmp/x.sock", tls_cert=Path("c.pem"), tls_key=Path("k.pem"))
    with pytest.raises(UsageError, match=r"x\.sock is a socket of this machine"):
        serve._check_door(settings, ())


def test_the_keys_of_a_pipe_are_left_for_who_goes_by_them(tmp_path: Path) -> None:
    from localllm.gateway.credentials import read_keys

    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    serve._check_door(Settings(api_key_file=pipe), ())
    writer = threading.Thread(target=pipe.write_text, args=(f"alice {KEY}\n",))
    writer.start()
    ring, warnings = read_keys(pipe)
    writer.join()
    assert (ring.find(KEY), warnings) == ("alice", ())


def test_llama_server_alone_has_the_whole_machine(
    monkeypatch: pytest.MonkeyPatch, tools: Tools
) -> None:
    class Reached(Exception):
        pass

    def reached(*given: Any) -> None:
        (settings,) = (each for each in given if isinstance(each, Settings))
        raise Reached(settings.replicas)

    monkeypatch.setattr(serve, "_prepare", reached)
    with pytest.raises(Reached, match="1"):
        serve.run(order(direct=True, replicas=2, port=0))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, "http://127.0.0.1:8080 "),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8080 "),
        ({"tls_cert": Path("c"), "tls_key": Path("k")}, "https://127.0.0.1:8080 "),
        ({"host": "/tmp/x.sock"}, "http+unix:///tmp/x.sock "),
        ({"port": 0}, "a free port of 127.0.0.1, which it tells "),
    ],
    ids=["usual", "every address", "tls", "socket", "free port"],
)
def test_where_llama_server_alone_is_found(changes: Any, where: str) -> None:
    assert f"{serve._place(Settings(**changes))} " == where
