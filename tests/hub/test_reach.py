"""The way to a model, gone over real sockets: which hop fails, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from localllm.errors import UsageError
from localllm.hub.hop import Hop, find_name
from localllm.hub.patience import Limits
from localllm.hub.reach import exit_code, probe_reach
from localllm.hub.web import Web
from localllm.naming import parse_ref
from localllm.units import GIB, KIB, MIB, format_seconds
from tests.conftest import PATIENCE_SECONDS
from tests.loopback_hub import (
    APIS,
    Drip,
    ExpiredRedirect,
    Fault,
    Gone,
    IgnoreRange,
    LoopbackHub,
    NotJson,
    RedirectLoop,
    RedirectTo,
    ServerError,
    TooManyRequests,
    Truncate,
)
from tests.loopback_hub.messages import Reply, Request

ALL_WELL, WARNED, NO_ACCESS, BROKEN = 0, 1, 4, 5
DATA = random.Random(3).randbytes(MIB)
REPO = "org/Model-GGUF"
FILES = {"a-Q4_K_M.gguf": DATA, "a-Q8_0.gguf": DATA + DATA, "README.md": b"#"}
WAY = ["settings", "name", "connection", "api", "resolve"]
TO_THE_CDN = ["name", "connection", "first-byte", "throughput"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, token or certificates of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().endswith(("_PROXY", "_CA_BUNDLE")) or name.startswith(
            ("SSL_CERT_", "HF_", "HUGGING_FACE_", "MODELSCOPE_", "TRANSFORMERS_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        running.add_repo(REPO, FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.modelscope_endpoint)
        yield running


def walked(ref: str, **limits: float) -> list[Hop]:
    web = Web(replace(Limits(idle_seconds=PATIENCE_SECONDS), **limits))  # type: ignore[arg-type]
    return list(probe_reach(parse_ref(ref), web))


def names(hops: list[Hop]) -> list[str]:
    return [hop.name for hop in hops]


def status_of(hops: list[Hop]) -> int:
    return exit_code([hop.finding for hop in hops if hop.finding])


def failed(hops: list[Hop]) -> tuple[str, str]:
    """The hop that fails, and its code; all before it are well, all behind it not reached."""
    (at,) = (no for no, hop in enumerate(hops) if hop.failed)
    assert all(hop.finding and hop.finding.level != "fail" for hop in hops[:at])
    assert [hop.finding for hop in hops[at + 1 :]] == [None] * (len(hops) - at - 1)
    finding = hops[at].finding
    assert finding is not None
    return hops[at].name, finding.code


def said(hops: list[Hop]) -> str:
    return "\n".join(f"{hop.finding.message} {hop.finding.fix}" for hop in hops if hop.finding)


def host(endpoint: str) -> str:
    return endpoint.partition("://")[2]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# All well.


def test_every_hop_to_a_repository_is_told(hub: LoopbackHub) -> None:
    hops = walked(REPO)
    assert names(hops) == [*WAY, *TO_THE_CDN]
    assert status_of(hops) == ALL_WELL
    api, cdn = host(hub.endpoint), host(hub.cdn_endpoint)
    assert [hop.host for hop in hops] == [api] * 5 + [cdn] * 4
    assert [hop.status for hop in hops] == [None] * 3 + [200, 302] + [None] * 2 + [206, None]
    assert all(hop.seconds is not None and hop.seconds >= 0 for hop in hops[1:])
    assert hops[3].facts["n_files"] == len(FILES)
    assert hops[4].facts["redirects_to"] == cdn
    assert hops[-1].facts["n_bytes"] == 2 * MIB
    assert hops[-1].facts["bytes_per_second"] > 0


def test_the_files_of_modelscope_are_reached_likewise(hub: LoopbackHub) -> None:
    hops = walked(f"ms:{REPO}")
    assert names(hops) == [*WAY, *TO_THE_CDN]
    assert status_of(hops) == ALL_WELL
    assert hops[3].host == host(hub.modelscope_endpoint)
    assert hops[-1].host == host(hub.cdn_endpoint)


def test_a_plain_url_has_no_api(hub: LoopbackHub) -> None:
    hops = walked(hub.add_file("m.gguf", DATA))
    assert names(hops) == ["settings", "name", "connection", "resolve", "first-byte", "throughput"]
    assert status_of(hops) == ALL_WELL
    assert hops[3].facts["redirects_to"] is None


def test_a_url_that_leads_to_another_host_is_followed_there(hub: LoopbackHub) -> None:
    other = hub.add_file("m.gguf", DATA).replace("127.0.0.1", "localhost")
    hops = walked(hub.add_redirect("latest.gguf", other))
    assert names(hops)[3:] == ["resolve", *TO_THE_CDN]
    assert hops[3].facts["redirects_to"] == hops[-1].host == host(other).partition("/")[0]
    assert status_of(hops) == ALL_WELL


def test_the_sample_is_bounded_and_of_the_smallest_file_that_has_one(hub: LoopbackHub) -> None:
    sizes = {"tiny.gguf": 1, "large.gguf": 6, "larger.gguf": 7}
    hub.add_repo("org/Sizes-GGUF", {name: bytes(n * MIB) for name, n in sizes.items()})
    hops = walked("org/Sizes-GGUF")
    assert hops[4].facts["file"] == "large.gguf"
    assert hops[-1].facts["n_bytes"] == 4 * MIB
    assert hub.sent_bytes("large.gguf") <= 4 * MIB + 4 * KIB  # and what comes with a redirect
    assert hub.sent_bytes("tiny.gguf") == hub.sent_bytes("larger.gguf") == 0


def test_a_page_of_the_hub_is_its_repository_and_that_very_file(hub: LoopbackHub) -> None:
    hops = walked(f"{hub.endpoint}/{REPO}/blob/main/a-Q4_K_M.gguf")
    assert names(hops) == [*WAY, *TO_THE_CDN]
    assert hops[4].facts["file"] == "a-Q4_K_M.gguf"


def test_a_slow_line_is_told_with_what_a_gib_would_take(hub: LoopbackHub) -> None:
    hub.cap_bytes_per_second = 8 * MIB
    hops = walked(REPO)
    rate = hops[-1].facts["bytes_per_second"]
    assert 0 < rate < 12 * MIB
    assert f"1 GiB takes about {format_seconds(GIB / rate)}" in said(hops)


@dataclass(frozen=True)
class Limited(Fault):
    """The hub's header, that says how many requests are left."""

    routes = frozenset(("api", "resolve"))

    def spoil(self, request: Request, reply: Reply) -> Reply:
        headers = {**reply.headers, "RateLimit": f'"{reply.route}";r=17;t=120'}
        return replace(reply, headers=headers)


def test_the_requests_that_are_left_are_told(hub: LoopbackHub) -> None:
    hub.misbehave(Limited())
    hops = walked(REPO)
    for hop in hops[3:5]:
        assert (hop.facts["n_left"], hop.facts["left_seconds"]) == (17, 120)
        assert hop.finding
        assert "17 requests left for 2 min 0 s" in hop.finding.message
    assert "n_left" not in walked(f"ms:{REPO}")[3].facts


# Settings.


def test_a_mirror_is_named_and_what_named_it(hub: LoopbackHub) -> None:
    facts = walked(REPO)[0].facts
    assert (facts["is_mirror"], facts["named_by"]) == (True, "HF_ENDPOINT")
    assert (facts["endpoint"], facts["token_from"]) == (hub.endpoint, None)


def test_offline_mode_asks_nobody(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hops = list(probe_reach(parse_ref(REPO), Web(offline=True)))
    assert failed(hops) == ("settings", "network.offline")
    assert hops[0].finding
    assert hops[0].finding.fix == "unset HF_HUB_OFFLINE"
    assert hub.requests == []
    assert status_of(hops) == BROKEN


@pytest.mark.parametrize(
    ("name", "level"), [("SSL_CERT_FILE", "warn"), ("REQUESTS_CA_BUNDLE", "fail")]
)
def test_certificates_that_are_not_there_are_named(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, name: str, level: str
) -> None:
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    finding = walked(f"ms:{REPO}")[0].finding
    assert finding
    assert (finding.level, finding.code) == (level, "network.certificates-missing")
    assert f"{name} is /no/such/bundle.pem" in finding.message


@pytest.mark.parametrize("ref", [REPO, f"ms:{REPO}"])
def test_the_token_is_used_and_only_its_variable_is_told(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, ref: str
) -> None:
    hub.add_repo("org/Private-GGUF", FILES, private=True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", hub.token)
    hops = walked(ref.replace("Model", "Private"))
    assert status_of(hops) == ALL_WELL
    assert hops[0].facts["token_from"] == ("HF_TOKEN" if ref == REPO else "MODELSCOPE_API_TOKEN")
    assert hops[3].facts["is_private"] is (True if ref == REPO else None)
    assert hub.token not in json.dumps([asdict(hop) for hop in hops])
    assert hub.leaks == []


def test_user_password_and_query_of_a_url_are_not_told(hub: LoopbackHub) -> None:
    url = hub.add_file("m.gguf", DATA).replace("://", "://ann:c4nary@")
    hub.misbehave(ServerError(), after=1)
    hops = walked(f"{url}?key=c4nary")
    assert hops[0].facts["token_from"] == "the URL"
    assert any(seen.authorization for seen in hub.requests)
    assert "c4nary" not in json.dumps([asdict(hop) for hop in hops])


# What fails.


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    hops = walked(REPO)
    assert failed(hops) == ("name", "network.name")
    assert names(hops) == ["settings", "name", "connection", "api", "resolve", *TO_THE_CDN[2:]]
    assert "hub.invalid" in said(hops)


@pytest.mark.parametrize("url", ["http://a..b/x", "http://x:99999/", f"http://{'a' * 70}.org/"])
def test_what_cannot_be_a_name_is_told_as_one_that_nobody_knows(url: str) -> None:
    assert find_name(url).failed


def test_a_port_that_nobody_listens_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    hops = walked(REPO)
    assert failed(hops) == ("connection", "network.connection")
    assert "refused" in said(hops)
    assert status_of(hops) == BROKEN


FAULTS = {
    "a login page for JSON": (NotJson(), APIS, "api", "network.login-page"),
    "too many requests": (TooManyRequests(), APIS, "api", "network.rate-limited"),
    "an API with trouble": (ServerError(), APIS, "api", "network.api"),
    "a file that is listed and not there": (Gone(), {"resolve"}, "resolve", "network.resolve"),
    "resolve with trouble": (ServerError(), {"resolve"}, "resolve", "network.resolve"),
    "redirects in circles": (RedirectLoop(), {"resolve"}, "resolve", "network.resolve"),
    "a redirect to a file": (
        RedirectTo("file:///etc/passwd"), {"resolve"}, "resolve", "network.resolve"),
    "a redirect to a name that is none": (
        RedirectTo("https://cdn.invalid/x"), {"resolve"}, "name", "network.name"),
    "a CDN with trouble": (ServerError(), {"cdn"}, "first-byte", "network.first-byte"),
    "too many requests to the CDN": (
        TooManyRequests(), {"cdn"}, "first-byte", "network.rate-limited"),
    "a signature that is over": (
        ExpiredRedirect(), {"resolve"}, "first-byte", "network.first-byte"),
    "a break in the first byte": (
        Truncate(0), {"cdn"}, "first-byte", "network.first-byte"),
    "a break in the sample": (
        Truncate(MIB), {"cdn"}, "throughput", "network.throughput"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "on", "hop", "code"), FAULTS.values(), ids=FAULTS)
def test_the_hop_that_fails_is_named(
    hub: LoopbackHub, fault: Fault, on: frozenset[str], hop: str, code: str
) -> None:
    rule = hub.misbehave(fault, on=on)  # type: ignore[arg-type]
    hops = walked(REPO)
    assert failed(hops) == (hop, code)
    assert rule.done > 0
    assert status_of(hops) == BROKEN


def test_a_cdn_that_does_not_listen_is_told_from_the_hub_that_does(hub: LoopbackHub) -> None:
    hub.cdn.close()
    hops = walked(REPO)
    assert failed(hops) == ("connection", "network.connection")
    assert names(hops) == [*WAY, *TO_THE_CDN]
    assert hops[6].host == host(hub.cdn_endpoint)


def test_an_api_that_does_not_answer_is_told_from_one_that_does_not_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert failed(walked(REPO, idle_seconds=0.2)) == ("api", "network.api")


@pytest.mark.parametrize("ref", [REPO, f"ms:{REPO}"])
def test_a_login_page_is_told_on_any_hub(hub: LoopbackHub, ref: str) -> None:
    hub.misbehave(NotJson())
    hops = walked(ref)
    assert failed(hops) == ("api", "network.login-page")
    assert "a login page of this network?" in said(hops)


@pytest.mark.parametrize("ref", ["org/nothing-GGUF", "ms:org/nothing-GGUF"])
def test_a_repository_that_is_not_there(hub: LoopbackHub, ref: str) -> None:
    hops = walked(ref)
    assert failed(hops) == ("api", "network.not-found")
    assert "org/nothing-GGUF" in said(hops)


def test_a_gated_repository_lists_and_does_not_resolve(hub: LoopbackHub) -> None:
    hub.add_repo("org/Gated-GGUF", FILES, gated="manual")
    hops = walked("org/Gated-GGUF")
    assert hops[3].facts["is_gated"] is True
    assert failed(hops) == ("resolve", "network.access")
    assert "HF_TOKEN" in said(hops)
    assert status_of(hops) == NO_ACCESS


# What is well, but could be better.


def test_an_api_that_answers_only_at_a_second_attempt_is_a_warning(hub: LoopbackHub) -> None:
    hub.misbehave(ServerError(502), times=1, on=APIS)
    hops = walked(REPO)
    assert [hop.finding.code for hop in hops if hop.finding and hop.finding.level == "warn"] == [
        "network.unsteady"
    ]
    assert "502" in said(hops)
    assert status_of(hops) == WARNED


def test_a_server_without_ranges_is_a_warning(hub: LoopbackHub) -> None:
    hub.misbehave(IgnoreRange())
    hops = walked(REPO)
    assert [hop.finding.code for hop in hops if hop.finding and hop.finding.level != "ok"] == [
        "network.no-ranges"
    ]


def test_a_repository_without_models_is_a_warning(hub: LoopbackHub) -> None:
    hub.add_repo("org/Other", {"model.safetensors": DATA})
    hops = walked("org/Other")
    assert hops[3].finding
    assert hops[3].finding.code == "network.no-model"
    assert status_of(hops) == WARNED


def test_a_rate_that_a_download_would_give_up_is_a_warning(hub: LoopbackHub) -> None:
    hub.misbehave(Drip(at_once_bytes=256 * KIB, pause_seconds=0.01), on={"cdn"})
    hops = walked(REPO, slow_bytes_per_second=float(GIB))
    assert hops[-1].finding
    assert hops[-1].finding.code == "network.slow"


# Proxies.


def test_a_proxy_is_asked_for_the_hosts_that_are_not_left_out(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's own port will do: it takes a request with a whole URL, as proxies get them.
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint.replace("://", "://ann:c4nary@"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    hops = walked(REPO)
    assert status_of(hops) == ALL_WELL
    assert [hop.proxy for hop in hops] == [hub.endpoint] * 5 + [None] * 4
    asked = next(seen for seen in hub.requests if seen.route == "api")
    assert asked.target.startswith(f"{hub.endpoint}/api/models/")
    assert "proxy-authorization" in asked.headers
    assert "c4nary" not in json.dumps([asdict(hop) for hop in hops])


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 407 Log \x1b[31min first\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,))
        thread.start()
        proxy = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:c4nary@{proxy}")
        hops = walked(REPO)
        thread.join(PATIENCE_SECONDS)
    assert failed(hops) == ("connection", "network.proxy")
    assert f"no connection to huggingface.co through http://{proxy}" in said(hops)
    assert "407" in said(hops)
    assert "c4nary" not in said(hops)
    assert "\x1b" not in said(hops)


# Certificates.


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=loopback",
         "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def secure(pem: tuple[Path, Path]) -> Iterator[str]:
    """A server that answers whatever is asked with an empty object; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pem)
    over = threading.Event()

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            if over.is_set():
                return connection.close()
            with (
                contextlib.suppress(OSError),  # they do not believe us
                context.wrap_socket(connection, server_side=True) as secured,
            ):
                secured.recv(4096)
                secured.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
                )

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{port}"
        over.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join(PATIENCE_SECONDS)


def test_a_certificate_that_is_not_believed_is_told_as_such(
    secure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", secure)
    hops = walked(REPO)
    assert failed(hops) == ("connection", "network.certificate")
    assert "self-signed certificate" in said(hops).replace("self signed", "self-signed")
    assert "SSL_CERT_FILE" in said(hops)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_is_believed_that_a_variable_names(
    secure: str, pem: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", secure)
    monkeypatch.setenv(name, str(pem[0]))
    hops = walked(REPO)
    assert failed(hops)[0] == "api"
    assert hops[0].facts["certificates_from"] == name
    assert hops[2].facts["tls"].startswith("TLSv1.")


def test_a_library_that_looks_elsewhere_for_certificates_is_told_where_they_are(
    secure: str, pem: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    close_session()  # it keeps the certificates that it has found once
    monkeypatch.setenv("HF_ENDPOINT", secure)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem[0]))
    hops = walked(REPO)
    assert failed(hops) == ("api", "network.library")
    assert f"export SSL_CERT_FILE={pem[0]}" in said(hops)


def test_a_certificate_for_another_name_is_told_with_the_name(
    secure: str, pem: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", secure.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem[0]))
    hops = walked(REPO)
    assert failed(hops) == ("connection", "network.certificate")
    assert "localhost" in said(hops)


def test_an_endpoint_that_is_no_address_is_the_persons_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(UsageError):
        walked(REPO)
