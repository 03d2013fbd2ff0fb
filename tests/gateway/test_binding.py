"""Addresses to listen on: what clients are told, and what a person is."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
from aiohttp import web

from localllm.cli import serve
from localllm.errors import AccessError, LocalllmError, UsageError
from localllm.gateway.binding import explain_bind_failure, url_of
from localllm.gateway.door import Door
from localllm.gateway.listening import Server, listen
from localllm.gateway.settings import Settings


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8080"),
        ("127.0.0.1", True, "https://127.0.0.1:8080"),
        ("0.0.0.0", False, "http://127.0.0.1:8080"),
        ("::", True, "https://[::1]:8080"),
        ("fe80::1", False, "http://[fe80::1]:8080"),
        ("mybox.example", False, "http://mybox.example:8080"),
        ("/run/x.sock", False, "http+unix:///run/x.sock"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_go_to(host: str, tls: bool, url: str) -> None:
    assert url_of(host, 8080, tls=tls) == url


async def _url_of(settings: Settings) -> str:
    async def never(_: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    listener, url = await listen(Server(never, settings), settings)
    listener.close()
    return url


def test_a_server_on_every_address_tells_a_url_that_its_own_door_lets_in() -> None:
    url = asyncio.run(_url_of(Settings(host="0.0.0.0", port=0)))
    assert url.startswith("http://127.0.0.1:")
    door = Door(own_names=("0.0.0.0",))
    assert door.check([url.removeprefix("http://")], [], "", "GET") is None


# 192.0.2.1 is for documentation (RFC 5737); the other is a name that no resolver is asked for.
@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_an_address_that_is_not_this_machines_is_a_mistake_of_who_typed_it(host: str) -> None:
    with pytest.raises(UsageError, match=f"'{host}' is not an address of this machine"):
        serve._check_port(host, 8080)


def test_a_name_that_cannot_be_one_is_told_by_the_gateway_too() -> None:
    with pytest.raises(UsageError, match=r"'a\.\.b' is not an address of this machine"):
        asyncio.run(_url_of(Settings(host="a..b")))


@pytest.mark.parametrize(
    ("failure", "kind", "told", "hint"),
    [
        (errno.EADDRNOTAVAIL, UsageError, "not an address of this machine", "127.0.0.1"),
        (errno.EADDRINUSE, LocalllmError, "cannot listen on [::1]:80: Addr", "another server"),
        (errno.EACCES, AccessError, "port 80 may not be used", "--port 8080"),
    ],
    ids=["elsewhere", "taken", "for root"],
)
def test_each_reason_has_its_sentence_and_its_hint(
    failure: int, kind: type[LocalllmError], told: str, hint: str
) -> None:
    error = explain_bind_failure("::1", 80, OSError(failure, os.strerror(failure)))
    assert type(error) is kind
    assert told in error.message
    assert hint in str(error.hint)


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(LocalllmError, match="path too long"):
        asyncio.run(_url_of(Settings(host=f"{tmp_path}/{'x' * 200}.sock")))


def test_a_port_that_is_taken_is_found_out_before_the_model_is_looked_at() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LocalllmError, match="cannot listen on 127"):
            serve._check_port("127.0.0.1", taken.getsockname()[1])
