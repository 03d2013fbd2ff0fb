"""The way to the network: who gets which header, what a refusal means, how long patience lasts."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from email.utils import formatdate
from time import time

import pytest

from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError, UsageError
from localllm.hub.address import Credentials, Secret, host_of, origin_of, without_secrets
from localllm.hub.patience import Limits, Patience, TransientError, wait_asked
from localllm.hub.remote import NoRangesError, RemoteFile
from localllm.hub.web import Web, refusal
from tests.loopback_hub import (
    LoopbackHub,
    RedirectLoop,
    RedirectTo,
    ServerError,
    Stall,
    TooManyRequests,
)

TOKEN = "canary-Zx81-token"
QUICK = Limits(connect_seconds=5, idle_seconds=5, attempts=3, backoff_seconds=0.01)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def web() -> Web:
    return Web(QUICK)


def bearer(url: str, token: str = TOKEN) -> Credentials:
    return Credentials(origin_of(url), {"Authorization": Secret(f"Bearer {token}")})


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@host.org/a/b.gguf?token=x#y", "https://host.org/a/b.gguf"),
        ("http://host.org:8080/a", "http://host.org:8080/a"),
        ("https://[::1]:9/a?b", "https://[::1]:9/a"),
        ("https://host.org:99999999/a", "https://host.org/a"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("https://me:pw@host.org:443/a", "https://host.org", "host.org"),
        ("http://Host.org:8080/a", "http://host.org:8080", "host.org:8080"),
        ("http://[::1]:80/", "http://[::1]", "[::1]"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str, host: str) -> None:
    assert (origin_of(url), host_of(url)) == (origin, host)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "https://", "x", "", "//h"])
def test_what_is_no_web_address_is_told(url: str) -> None:
    with pytest.raises(UsageError):
        origin_of(url)


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(TOKEN)
    assert TOKEN not in f"{secret} {secret!r} {[secret]} {Credentials('o', {'a': secret})}"
    assert secret.reveal() == TOKEN


# -- credentials ---------------------------------------------------------------------------------


def test_a_token_goes_to_its_own_origin(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("a.bin", b"abc")
    assert web.document(url, bearer(url)) == b"abc"
    assert hub.requests[-1].authorization == f"Bearer {TOKEN}"


def test_a_token_does_not_follow_a_redirect_to_another_origin(hub: LoopbackHub, web: Web) -> None:
    commit = hub.add_repo("org/m", {"m.gguf": b"x" * 1000})
    url = f"{hub.endpoint}/org/m/resolve/{commit}/m.gguf"
    file = RemoteFile(web, url, "m.gguf", credentials=bearer(url, hub.token), size_bytes=1000)
    assert file.read(10, 5) == b"xxxxx"
    assert hub.requests[0].authorization == f"Bearer {hub.token}"
    assert hub.requests[-1].route == "cdn"
    assert hub.leaks == []


def test_a_token_is_in_no_error_and_no_traceback(hub: LoopbackHub, web: Web) -> None:
    hub.files.close()
    url = f"http://user:{TOKEN}@{hub.files_endpoint[7:]}/files/x?token={TOKEN}"
    with pytest.raises(TransientError) as caught:
        web.document(url, bearer(url))
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert TOKEN not in shown


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [RedirectLoop(), RedirectTo("file:///etc/passwd"), RedirectTo("gopher://x"), RedirectTo("//[")],
    ids=["in circles", "to a file", "to another scheme", "to nothing"],
)
def test_a_redirect_that_leads_nowhere_is_a_network_error(
    hub: LoopbackHub, web: Web, fault: RedirectLoop | RedirectTo
) -> None:
    url = hub.add_file("a.bin", b"abc")
    hub.misbehave(fault, file="a.bin")
    with pytest.raises(NetworkError, match="redirects"):
        web.document(url)


# -- refusals ------------------------------------------------------------------------------------


class _Status:
    """An answer of a status."""

    url = "https://host.org/x?token=secret"

    def __init__(self, status: int, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, AccessError, 4), (403, AccessError, 4), (404, NotFoundError, 3),
        (410, NotFoundError, 3), (408, TransientError, 5), (416, TransientError, 5),
        (429, TransientError, 5), (500, TransientError, 5), (503, TransientError, 5),
        (418, NetworkError, 5), (204, NetworkError, 5),
    ],
)  # fmt: skip
def test_a_refusal_has_its_exit_code(status: int, error: type[LocalllmError], code: int) -> None:
    told = refusal(_Status(status), "x.gguf")  # type: ignore[arg-type]
    assert type(told) is error
    assert told.exit_code == code
    assert "host.org" in told.message
    assert "secret" not in told.message


def test_only_a_server_that_asks_to_wait_makes_us_wait() -> None:
    busy = refusal(_Status(429, Retry_After="7"), "x")  # type: ignore[arg-type]
    assert isinstance(busy, TransientError)
    assert busy.wait_seconds == 7
    broken = refusal(_Status(500, Retry_After="7"), "x")  # type: ignore[arg-type]
    assert isinstance(broken, TransientError)
    assert broken.wait_seconds is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "12"}, 12.0),
        ({"Retry-After": " 3 "}, 3.0),
        ({"Retry-After": "never"}, None),
        ({"RateLimit": '"resolvers";r=0;t=123'}, 123.0),
        ({"RateLimit": '"api";r=5;t=123'}, None),
        ({"Retry-After": "9" * 400}, 999999999.0),
        ({"Retry-After": formatdate(0, usegmt=True)}, 0.0),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert wait_asked(headers) == seconds


def test_a_date_to_wait_for_is_seconds_from_now() -> None:
    waited = wait_asked({"Retry-After": formatdate(time() + 60, usegmt=True)})
    assert waited is not None
    assert 50 < waited <= 61


# -- patience ------------------------------------------------------------------------------------


def test_patience_ends_after_so_many_failures_in_a_row() -> None:
    patience = Patience(QUICK, attempts=3)
    error = TransientError("x")
    assert patience.pause(error) > 0
    assert patience.pause(error) > 0
    with pytest.raises(TransientError):
        patience.pause(error)


def test_progress_restores_patience() -> None:
    patience = Patience(QUICK, attempts=2)
    for _ in range(10):
        patience.pause(TransientError("x"))
        patience.progress()


def test_waiting_is_bounded_in_all() -> None:
    patience = Patience(Limits(wait_seconds=100))
    error = TransientError("x")
    error.wait_seconds = 60
    assert patience.pause(error) == 60
    with pytest.raises(TransientError):
        patience.pause(error)


def test_no_seconds_for_ever_is_not_waited_for_ever() -> None:
    patience = Patience(QUICK, attempts=2)
    error = TransientError("x")
    error.wait_seconds = 0.0
    patience.pause(error)
    with pytest.raises(TransientError):
        patience.pause(error)


def test_a_document_is_asked_for_again_and_a_failing_server_told(
    hub: LoopbackHub, web: Web
) -> None:
    url = hub.add_file("a.bin", b"abc")
    hub.misbehave(ServerError(500), file="a.bin", times=2)
    assert web.document(url) == b"abc"
    hub.misbehave(ServerError(500), file="a.bin")
    with pytest.raises(NetworkError, match="500"):
        web.document(url)


def test_a_page_of_metadata_is_not_waited_for_minutes(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("a.bin", b"abc")
    hub.misbehave(TooManyRequests(3600), file="a.bin")
    with pytest.raises(NetworkError) as caught:
        web.document(url)
    assert "wait 60 min" in (caught.value.hint or "")
    assert len(hub.requests) == 1


def test_a_document_without_end_is_given_up(hub: LoopbackHub) -> None:
    url = hub.add_file("a.bin", bytes(5_000_000))
    with pytest.raises(NetworkError, match="does not end"):
        Web(Limits(document_bytes=1_000_000)).document(url)


def test_a_silent_server_is_given_up(hub: LoopbackHub) -> None:
    url = hub.add_file("a.bin", bytes(1000))
    hub.misbehave(Stall(10), file="a.bin")
    with pytest.raises(TransientError, match="does not answer"):
        Web(Limits(idle_seconds=0.2, backoff_seconds=0.01)).document(url)


def test_offline_nobody_is_asked(hub: LoopbackHub) -> None:
    url = hub.add_file("a.bin", b"abc")
    with pytest.raises(NetworkError, match="offline mode"):
        Web(offline=True).document(url)
    assert hub.requests == []


# -- one file ------------------------------------------------------------------------------------


def test_the_size_is_what_the_server_says_where_nobody_listed_it(
    hub: LoopbackHub, web: Web
) -> None:
    file = RemoteFile(web, hub.add_file("a.bin", bytes(4321)), "a.bin")
    assert file.size_bytes == 4321
    assert file.read(4300, 1000) == bytes(21)
    assert file.read(5000, 10) == b""


def test_a_piece_is_read_from_a_server_that_knows_no_ranges(hub: LoopbackHub, web: Web) -> None:
    hub.ranges = False
    data = bytes(range(256)) * 40
    file = RemoteFile(web, hub.add_file("a.bin", data), "a.bin")
    assert file.read(300, 20) == data[300:320]
    with pytest.raises(NoRangesError):
        file.open(300, 320)


def test_a_signed_address_is_asked_for_anew_when_it_expired(hub: LoopbackHub, web: Web) -> None:
    commit = hub.add_repo("org/m", {"m.gguf": b"0123456789"})
    file = RemoteFile(web, f"{hub.endpoint}/org/m/resolve/{commit}/m.gguf", "m", size_bytes=10)
    assert file.read(0, 2) == b"01"
    assert file.read(2, 2) == b"23"
    assert [seen.route for seen in hub.requests] == ["resolve", "cdn", "cdn"]
    hub.expire_urls()
    assert file.read(4, 2) == b"45"
    assert [seen.route for seen in hub.requests][3:] == ["cdn", "resolve", "cdn"]
