"""Who is let in, over real sockets: keys, spellings of paths, Host and Origin, TLS, a socket."""

from __future__ import annotations

import base64
import json
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until
from tests.gateway.serving import Answer, Served, read_answers, served

ALICE, BOB = "alice-0123456789abcdef", "bob-fedcba9876543210"
APP = "https://app.example"
WITH_KEY = f"Authorization: Bearer {ALICE}"
#: What only those who hold a key may read: llama-server's answers about its model, and figures.
OF_THE_MODEL = (b"demo", b"n_ctx", b"gguf", b'"tokens"', b"localllm_", b"llamacpp", b'"content"')


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.touch(0o600)
    path.write_text(f"alice {ALICE}\nbob {BOB}\n")
    return path


@pytest.fixture(scope="module")
def gateway(keys: Path) -> Iterator[Served]:
    with served("demo", "--api-key-file", str(keys), "--allowed-host", "llm.example") as one:
        yield one


def ask(
    gateway: Served,
    target: str | bytes = "/v1/models",
    *headers: str | bytes,
    method: str = "GET",
    host: str | None = "localhost",
    body: bytes = b"",
) -> Answer:
    """The one answer to one request, written as it stands here.

    Text is Latin-1. No answer of this file's first gateway may hold a header of CORS.
    """
    lines: list[str | bytes] = [] if host is None else [f"Host: {host}"]
    lines += ["Connection: close", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    head = b"\r\n".join(_bytes(line) for line in lines)
    start = _bytes(method) + b" " + _bytes(target) + b" HTTP/1.1\r\n"
    raw = gateway.talk(start + head + b"\r\n\r\n" + body)
    # What a HEAD cannot be parsed for is refused with a body.
    head, gap, rest = raw.partition(b"\r\n\r\n")
    is_head = method == "HEAD"
    (answer,) = read_answers(head + gap if is_head else raw, to_head=is_head)
    if is_head:
        answer = replace(answer, body=rest)
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    return answer


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def assert_closed(answer: Answer, *statuses: int) -> None:
    """It was refused, and tells nothing of the model."""
    assert answer.status in (statuses or (400, 401, 403, 404, 405)), answer
    assert not [mark for mark in OF_THE_MODEL if mark in answer.body], answer.body


RIGHT = {
    "bearer": [WITH_KEY],
    "another's key": [f"Authorization: Bearer {BOB}"],
    "lower case": [f"authorization: bearer {ALICE}"],
    "upper case": [f"AUTHORIZATION: BEARER {ALICE}"],
    "blanks": [f"Authorization: \t Bearer  {ALICE} \t"],
    "no scheme, as llama-server takes it": [f"Authorization: {ALICE}"],
    "x-api-key": [f"X-Api-Key: {ALICE}"],
    "x-api-key in lower case": [f"x-api-key: {ALICE}"],
    "both": [WITH_KEY, f"X-Api-Key: {ALICE}"],
    "an empty authorization beside x-api-key": ["Authorization:", f"X-Api-Key: {ALICE}"],
    "an empty bearer beside x-api-key": ["Authorization: Bearer", f"X-Api-Key: {ALICE}"],
}


@pytest.mark.parametrize("headers", RIGHT.values(), ids=RIGHT)
def test_a_right_key_opens(gateway: Served, headers: list[str]) -> None:
    answer = ask(gateway, "/v1/models", *headers)
    assert answer.status == 200
    assert b"demo" in answer.body


WRONG: dict[str, list[str | bytes]] = {
    "no key": [],
    "an empty authorization": ["Authorization:"],
    "a bearer without a key": ["Authorization: Bearer"],
    "a bearer of blanks": ["Authorization: Bearer   "],
    "an empty x-api-key": ["X-Api-Key:"],
    "another key": ["Authorization: Bearer mallory-0123456789abcdef"],
    "a key's beginning": [f"Authorization: Bearer {ALICE[:-1]}"],
    "a key's end": [f"Authorization: Bearer {ALICE[1:]}"],
    "a key and more": [f"Authorization: Bearer {ALICE}0"],
    "a key in capitals": [f"Authorization: Bearer {ALICE.upper()}"],
    "a key twice": [f"Authorization: Bearer {ALICE}{ALICE}"],
    "keys as a list": [f"Authorization: Bearer {ALICE}, Bearer {BOB}"],
    "keys as a line of CSV": [f"Authorization: Bearer {ALICE},{BOB}"],
    "a key in quotes": [f'Authorization: Bearer "{ALICE}"'],
    "the scheme twice": [f"Authorization: Bearer Bearer {ALICE}"],
    "another scheme": [f"Authorization: Token {ALICE}"],
    "basic": [f"Authorization: Basic {base64.b64encode(f'alice:{ALICE}'.encode()).decode()}"],
    "a key's name": ["Authorization: Bearer alice"],
    "a line of the key file": [f"Authorization: Bearer alice {ALICE}"],
    "what the gateway tells llama-server instead": ["Authorization: none"],
    "a wildcard": ["Authorization: Bearer *"],
    "a wrong one before a right x-api-key": [
        "Authorization: Bearer mallory-0123456789",
        f"X-Api-Key: {ALICE}",
    ],
    "a wrong one before a right one": ["Authorization: Bearer mallory-0123456789", WITH_KEY],
    "in a cookie": [f"Cookie: api_key={ALICE}; Authorization=Bearer {ALICE}"],
    "in proxy-authorization": [f"Proxy-Authorization: Bearer {ALICE}"],
    "in another header": [f"X-Authorization: Bearer {ALICE}", f"X_Api_Key: {ALICE}"],
    "in another header's second line": ["X-Note: a", f" Authorization: Bearer {ALICE}"],
    "in a second line": ["Authorization:", f" Bearer {ALICE}"],
    "behind a blank in the name": [f"Authorization : Bearer {ALICE}"],
    "named as a header to be dropped": ["Connection: authorization, x-api-key, close"],
    "as UTF-8": ["Authorization: Bearer ключ-ключ-ключ".encode()],
    "in wide letters": ["Authorization: Bearer ａlice-0123456789abcdef".encode()],
    "as bytes that are no text": [b"Authorization: Bearer \xff\xfe\x80\x81"],
    "with a null byte": [f"Authorization: Bearer {ALICE}\0"],
    "cut by a null byte": [f"Authorization: Bearer {ALICE}\0mallory"],
    "with a carriage return": [f"Authorization: Bearer x\rAuthorization: Bearer {ALICE}"],
    "long": ["Authorization: Bearer " + "x" * 10_000],
    "longer than a header": ["Authorization: Bearer " + "x" * 100_000],
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_anything_else_does_not(gateway: Served, headers: list[str | bytes]) -> None:
    assert_closed(ask(gateway, "/v1/models", *headers), 400, 401)


@pytest.mark.parametrize(
    "target",
    [
        f"/v1/models?api_key={ALICE}",
        f"/v1/models?key={ALICE}&token={ALICE}",
        f"/v1/models?Authorization=Bearer%20{ALICE}",
        f"/v1/models/{ALICE}",
        f"http://{ALICE}@localhost/v1/models",
        f"http://alice:{ALICE}@localhost/v1/models",
    ],
    ids=["api_key", "key and token", "authorization", "a segment", "a user", "a password"],
)
def test_a_key_in_the_target_is_none(gateway: Served, target: str) -> None:
    assert_closed(ask(gateway, target), 400, 401)


def test_a_key_in_the_body_is_none(gateway: Served) -> None:
    body = json.dumps({"content": "a", "api_key": ALICE}).encode()
    assert_closed(ask(gateway, "/tokenize", method="POST", body=body), 401)


def test_the_secret_of_a_llama_server_opens_nothing(gateway: Served) -> None:
    (child,) = gateway.children
    secret = child.environ()["LLAMA_API_KEY"]
    assert_closed(ask(gateway, "/v1/models", f"Authorization: Bearer {secret}"), 401)
    assert_closed(ask(gateway, "/v1/models", f"X-Api-Key: {secret}"), 401)


PROTECTED = (
    "/v1/models", "/models", "/props", "/slots", "/slots/0", "/metrics", "/openapi.json",
    "/lora-adapters", "/tokenize", "/detokenize", "/apply-template", "/v1/chat/completions",
    "/chat/completions", "/completion", "/v1/completions", "/v1/responses", "/v1/messages",
    "/v1/embeddings", "/v1/rerank", "/infill", "/v1/stream", "/v1/streams/lookup",
    "/v1/chat/completions/control", "/v1/messages/count_tokens",
)  # fmt: skip
SPELLED = (
    "/%761/models", "/v1/%6dodels", "/v1%2fmodels", "/%2Fv1/models", "/%u0076%u0031/models",
    "//v1/models", "///v1//models", "/v1/../v1/models", "/health/../v1/models", "/./v1/models",
    "/health/..%2fv1/models", "/%2e%2e/v1/models", "/healthz/../v1/models", "/../../v1/models",
    "/v1/models/", "/v1/models//", "/v1/models;params", "/;/v1/models", "/v1/models%00",
    "/health%00/../v1/models", "/v1/models#/health", "/v1/models?/health", "/V1/MODELS",
    "/health;/../props", "/health?/v1/models", "/v1/models%20", "/v1\\models", "\\v1\\models",
    "http://localhost/v1/models", "http://evil.example/v1/models", "https://localhost/props",
    "http:/v1/models", "//localhost/v1/models", "v1/models", "*", "?", "#", "/%", "/%zz/models",
    "/%6Detrics", "/metrics/", "//metrics", "/metrics%2f", "/metrics?x", "/openapi.json%00",
    "/v2/models", "/v2/models/x/ready/../../../../props", "/v2/health/../../slots",
    "/index.html/../props", "/static/%2e%2e/props",
)  # fmt: skip


@pytest.mark.parametrize("target", [*PROTECTED, *SPELLED])
def test_no_spelling_of_a_path_needs_no_key(gateway: Served, target: str) -> None:
    is_public = target.startswith("/health?")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "GETS"):
        body = b'{"content":"a","prompt":"a"}' if method in ("POST", "PUT", "PATCH") else b""
        answer = ask(gateway, target, method=method, body=body)
        if is_public and answer.status == 200:
            assert answer.body in (b"", b'{"status":"ok"}')
        else:
            assert_closed(answer)


@pytest.mark.parametrize("target", ["*", "/v1/models", "/metrics", "/v1/chat/completions"])
def test_options_tells_nothing(gateway: Served, target: str) -> None:
    answer = ask(gateway, target, method="OPTIONS")
    assert answer.status in (200, 400, 401)
    assert not [mark for mark in OF_THE_MODEL if mark in answer.body]


def test_a_tunnel_is_not_opened(gateway: Served) -> None:
    for headers in ((), (WITH_KEY,)):
        assert_closed(ask(gateway, "localhost:80", *headers, method="CONNECT"))


@pytest.mark.parametrize(
    "target",
    ["/v1/models", "/models", "/props", "/slots", "/metrics", "/openapi.json", "/%761/models"],
)
def test_with_a_key_they_are_all_there(gateway: Served, target: str) -> None:
    answer = ask(gateway, target, WITH_KEY)
    assert answer.status == 200
    assert answer.body


@pytest.mark.parametrize(
    "target",
    [
        "/v1/chat/completions", "/v1/%63hat/completions", "/v1%2Fchat/completions",
        "/v1/./chat/completions", "/v1/x/../chat/completions", "/v1/%2e/chat/completions",
        "/v1/%u0063hat/completions", "//v1/chat/completions", "/v1/chat/completions#x",
        "/v1/chat/completions;x", "http://localhost/v1/chat/completions",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_goes_round_the_queue(gateway: Served, target: str) -> None:
    body = b'{"messages":[{"role":"user","content":"a"}],"max_tokens":1}'
    answer = ask(gateway, target, WITH_KEY, method="POST", body=body)
    request_id = answer.header("x-request-id")
    assert request_id is not None
    wait_until(lambda: request_id in gateway.log("access"), "its line in the log")
    (line,) = (of for of in gateway.log("access").splitlines() if request_id in of)
    entry = json.loads(line)
    if answer.status == 200:
        assert entry["route"] == "/v1/chat/completions"
        assert entry["queue_ms"] is not None
    else:
        assert answer.status == 404
        assert entry["n_tokens"] is None


PUBLIC = ("/health", "/v1/health", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


@pytest.mark.parametrize("target", PUBLIC)
@pytest.mark.parametrize("headers", [[], [WITH_KEY], ["Authorization: Bearer wrong-wrong"]])
def test_health_is_for_everybody(gateway: Served, target: str, headers: list[str]) -> None:
    answer = ask(gateway, target, *headers)
    assert answer.status == 200
    assert json.loads(answer.body)["status"] == "ok"


def test_a_check_of_http_1_0_needs_no_host(gateway: Served) -> None:
    (answer,) = read_answers(gateway.talk(b"GET /readyz HTTP/1.0\r\n\r\n"))
    assert answer.status == 200
    (answer,) = read_answers(gateway.talk(b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n"))
    assert answer.status == 400


def test_a_model_is_ready_by_its_name(gateway: Served) -> None:
    assert ask(gateway, "/v2/models/localllm%20demo/ready").status == 200
    assert ask(gateway, "/v2/models/demo/ready").status == 200
    assert ask(gateway, "/v2/models/localllm%20demo/versions/1/ready").status == 200
    assert ask(gateway, "/v2/models/other/ready").status == 404


def test_the_web_page_comes_without_a_key_and_its_data_do_not(gateway: Served) -> None:
    page = ask(gateway, "/", "Accept-Encoding: gzip")
    if page.status == 401:
        pytest.skip("this engine was built without the web page")
    assert page.status == 200
    assert page.header("content-encoding") == "gzip"
    assert ask(gateway, "/index.html", "Accept-Encoding: gzip").body == page.body
    assert_closed(ask(gateway, "/props", "Accept-Encoding: gzip"), 401)


HOSTS = {
    "localhost": 200,
    "localhost:1": 200,
    "127.0.0.1": 200,
    "[::1]:8080": 200,
    "192.168.1.2": 200,
    "llm.example": 200,
    "llm.example:443": 200,
    "evil.example": 403,
    "localhost.evil.example": 403,
    "evil-localhost": 403,
    "xllm.example": 403,
    "llm.example.": 400,
    "0.0.0.0": 403,
    "localhost:99999": 400,
    "localhost@evil.example": 400,
    "localhost/evil": 400,
    "local host": 400,
    "localhost, evil.example": 400,
    "": 400,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items(), ids=[f"host {of}" for of in HOSTS])
def test_a_name_that_is_not_ours_is_refused_even_with_a_key(
    gateway: Served, host: str, status: int
) -> None:
    for target in ("/v1/models", "/health", "/healthz", "/metrics"):
        answer = ask(gateway, target, WITH_KEY, host=host)
        assert answer.status == status
        if status != 200:
            assert_closed(answer)


def test_a_request_has_one_host(gateway: Served) -> None:
    assert_closed(ask(gateway, "/v1/models", WITH_KEY, host=None), 400)
    assert_closed(ask(gateway, "/v1/models", WITH_KEY, "Host: evil.example"), 400)
    assert_closed(ask(gateway, "/v1/models", WITH_KEY, "Host: localhost"), 400)


PAGES: dict[str, tuple[list[str], int]] = {
    "our own page": (["Origin: http://localhost"], 200),
    "another port": (["Origin: http://localhost:3000"], 403),
    "another scheme": (["Origin: https://localhost"], 403),
    "another site": (["Origin: http://evil.example"], 403),
    "a file": (["Origin: null"], 403),
    "no origin": (["Origin: localhost"], 403),
    "two": (["Origin: http://localhost", "Origin: http://evil.example"], 400),
    "a list": (["Origin: http://localhost http://evil.example"], 403),
    "the person": (["Sec-Fetch-Site: none"], 200),
    "our own page's link": (["Sec-Fetch-Site: same-origin"], 200),
    "another site's image": (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"], 403),
    "another port's script": (["Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: script"], 403),
    "another site's link": (
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        200,
    ),
    "another site's frame": (
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
        403,
    ),
}


@pytest.mark.parametrize(("headers", "status"), PAGES.values(), ids=PAGES)
def test_a_page_of_another_origin_is_refused(
    gateway: Served, headers: list[str], status: int
) -> None:
    for target in ("/v1/models", "/health", "/healthz", "/metrics"):
        answer = ask(gateway, target, WITH_KEY, *headers)
        assert answer.status == status
        if status != 200:
            assert_closed(answer)


def test_a_preflight_is_refused_without_cors(gateway: Served) -> None:
    asks = ("Origin: https://app.example", "Access-Control-Request-Method: POST")
    assert_closed(ask(gateway, "/v1/chat/completions", *asks, method="OPTIONS"), 403)
    same = ("Origin: http://localhost", "Access-Control-Request-Method: POST")
    assert_closed(ask(gateway, "/v1/chat/completions", *same, method="OPTIONS"), 403)


# TLS and CORS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key),
            "-out", str(cert), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def secure(keys: Path, certificate: tuple[Path, Path]) -> Iterator[Served]:
    cert, key = certificate
    with served(
        "demo", "--api-key-file", str(keys), "--tls-cert", str(cert), "--tls-key", str(key),
        "--cors-origin", APP,
    ) as one:  # fmt: skip
        yield one


@pytest.fixture
def client(secure: Served, certificate: tuple[Path, Path]) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    headers = {"Authorization": f"Bearer {ALICE}"}
    with secure.client(verify=context, headers=headers) as one:
        yield one


def test_it_answers_https_where_it_has_a_certificate(secure: Served, client: httpx.Client) -> None:
    assert secure.url.startswith("https://")
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "none"}).status_code == 401


def test_a_stream_comes_whole_through_tls(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert list(response.iter_lines())[-2:] == ["data: [DONE]", ""]


def test_plain_http_is_not_answered_there(secure: Served) -> None:
    raw = secure.talk(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{WITH_KEY}\r\n\r\n".encode())
    assert b"HTTP/" not in raw
    assert b"demo" not in raw


def test_its_certificate_is_what_a_client_relies_on(secure: Served) -> None:
    with secure.client() as stranger, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        stranger.get("/v1/models")


def test_a_listed_page_may_use_it(client: httpx.Client) -> None:
    for target in ("/v1/models", "/healthz", "/metrics", "/nowhere"):
        answer = client.get(target, headers={"Origin": APP})
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [APP]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


def test_a_listed_page_reads_what_it_was_refused_for(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"Origin": APP, "Authorization": "none"})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == APP


def test_a_listed_page_may_ask_before_without_a_key(secure: Served, client: httpx.Client) -> None:
    asks = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    del client.headers["Authorization"]
    answer = client.options("/v1/chat/completions", headers=asks)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


def test_another_page_is_told_nothing_by_cors(client: httpx.Client) -> None:
    for origin in ("https://evil.example", "http://app.example", "https://app.example:444", "null"):
        for answer in (
            client.get("/v1/models", headers={"Origin": origin}),
            client.options(
                "/v1/models", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
            ),
        ):
            assert answer.status_code == 403
            assert not [of for of in answer.headers if of.lower().startswith("access-control")]
            assert b"demo" not in answer.content


# Where it listens.


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    config, keys = tmp_path / "serve.yaml", tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{ALICE}\n")
    config.write_text("api_key_file: keys\n")
    with tempfile.TemporaryDirectory(prefix="ll-") as folder:
        path = Path(folder) / "llm.sock"
        with served("demo", "--host", str(path), "--config", str(config)) as one:
            assert one.url == f"http+unix://{path}"
            assert path.stat().st_mode & 0o022 == 0  # to connect is to write
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://localhost") as client:
                _ask_by_socket(client)
                _change_keys(one, client, config, keys)


def _ask_by_socket(client: httpx.Client) -> None:
    mine = {"X-Api-Key": ALICE}
    assert client.get("/v1/models", headers=mine).json()["data"]
    assert client.get("/v1/models").status_code == 401
    evil = client.get("/v1/models", headers={**mine, "Host": "evil.example"})
    assert evil.status_code == 403


def _change_keys(one: Served, client: httpx.Client, config: Path, keys: Path) -> None:
    def status(key: str) -> int:
        return client.get("/v1/models", headers={"X-Api-Key": key}).status_code

    keys.write_text(f"{BOB}\n")
    one.signal(signal.SIGHUP)
    wait_until(lambda: (status(ALICE), status(BOB)) == (401, 200), "the new key to open")
    # A file of settings that names no keys any more must not open the door to everybody.
    config.write_text("queue_limit: 1\n")
    one.signal(signal.SIGHUP)
    wait_until(lambda: "api_key_file: changes only when" in one.output, "a warning")
    wait_until(lambda: one.status.queue_limit == 1, "the new settings")
    assert (client.get("/v1/models").status_code, status(BOB)) == (401, 200)


OPEN: dict[str, tuple[str, ...]] = {
    "every IPv4 address": ("--host", "0.0.0.0"),
    "every IPv6 address": ("--host", "::"),
    "another address": ("--host", "192.0.2.1"),
    "a name": ("--host", "myhost.example"),
    "after the dashes": ("--", "--host", "0.0.0.0"),
}


@pytest.mark.parametrize("argv", OPEN.values(), ids=OPEN)
@pytest.mark.parametrize("how", [(), ("--direct",), ("--background",), ("--print-systemd",)])
def test_the_network_is_not_let_in_without_a_key(
    how: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    if how and argv != OPEN["every IPv4 address"]:
        return
    done = run_localllm("serve", "demo", *how, *argv)
    assert done.returncode == 2
    assert "without a key" in done.stderr
    assert "--api-key-file" in done.stderr


def test_serve_yaml_does_not_let_it_in_either(home: Path) -> None:
    config = home / "serve.yaml"
    config.write_text("host: 0.0.0.0\n")
    done = run_localllm("serve", "demo", "--config", str(config), "--print-systemd")
    assert done.returncode == 2
    config.write_text("host: 0.0.0.0\ninsecure: true\n")
    done = run_localllm("serve", "demo", "--config", str(config), "--print-systemd")
    assert done.returncode == 0


def test_half_of_tls_is_refused(certificate: tuple[Path, Path]) -> None:
    done = run_localllm("serve", "demo", "--tls-cert", str(certificate[0]))
    assert done.returncode == 2
    assert "--tls-key" in done.stderr
