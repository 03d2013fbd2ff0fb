"""The door: which Host and Origin come in, and what other pages' browsers are told.

Every way round it that was found in the wild elsewhere has a row.
"""

from __future__ import annotations

from typing import Any

import pytest

from localllm.errors import UsageError
from localllm.gateway.door import Door, Refusal

APP = "https://app.example"
NAMES = {
    "allowed_hosts": ("llm.example.com", "Müller.example", "10.0.0.1"),
    "own_names": ("mybox", "mybox.local", "0.0.0.0", "::", "not a name", "x" * 300, ""),
}


def status_of(
    host: str | list[str] = "localhost:8080",
    origin: str | list[str] | None = None,
    *,
    method: str = "GET",
    site: str = "",
    mode: str = "",
    dest: str = "",
    **settings: Any,
) -> int:
    """The status that the door answers a request with; 0 where it lets it in."""
    hosts = [host] if isinstance(host, str) else host
    origins = [origin] if isinstance(origin, str) else origin or []
    refusal = Door(**settings).check(
        hosts, origins, site, method, sec_fetch_mode=mode, sec_fetch_dest=dest
    )
    if refusal is None:
        return 0
    assert refusal.reason
    assert refusal.reason.isprintable(), "what a stranger sends must not come out in a log"
    return refusal.status


def let_in(*cases: str) -> list[Any]:
    return [pytest.param(host, 0, id=f"let in {host}") for host in cases]


def malformed(**cases: str) -> list[Any]:
    return [pytest.param(host, 400, id=why.replace("_", " ")) for why, host in cases.items()]


def strange(**cases: str) -> list[Any]:
    return [pytest.param(host, 403, id=why.replace("_", " ")) for why, host in cases.items()]


HOSTS = [
    *let_in(
        "localhost",
        "localhost:8080",
        "LocalHost:8080",
        "localhost:1",
        "localhost:65535",
        "chat.localhost",
        "a.b.localhost:3000",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.8.9.10:8080",
        "192.168.1.20:9000",
        "8.8.8.8",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]:8080",
        "[FE80::1]",
        "[::ffff:127.0.0.1]:8080",
        "mybox",
        "MYBOX:8080",
        "mybox.local:8080",
        "llm.example.com",
        "LLM.Example.COM:443",
        "xn--mller-kva.example",
        "XN--MLLER-KVA.example:8080",
        "10.0.0.1",
    ),
    *strange(
        dns_rebinding="evil.example:8080",
        a_rebinding_service="7f000001.c0a80001.rbndr.us:8080",
        an_address_as_a_name="127.0.0.1.nip.io",
        an_address_before_a_name="127.0.0.1.evil.example",
        localhost_before_a_name="localhost.evil.example",
        localhost_after_a_name="evil-localhost",
        localhost_within_a_name="notlocalhost:8080",
        localhost_with_a_domain="localhost.localdomain",
        localtest="app.localtest.me",
        own_name_before_a_name="mybox.evil.example",
        own_name_after_a_name="evilmybox",
        below_an_own_name="evil.mybox",
        another_local_name="other.local",
        local_before_a_name="mybox.local.evil.example",
        allowed_before_a_name="llm.example.com.evil.example",
        allowed_after_a_name="evil-llm.example.com",
        below_an_allowed_name="evil.llm.example.com",
        above_an_allowed_name="example.com",
        zero_address="0.0.0.0",
        zero_address_day="0.0.0.0:8080",
        zero_address_of_ipv6="[::]:8080",
        zero_address_of_ipv6_written_out="[0:0:0:0:0:0:0:0]",
        zero_address_mapped="[::ffff:0.0.0.0]:8080",
        zero_address_mapped_in_hex="[::ffff:0:0]",
        zero_alone="0",
        zero_in_hex="0x0",
        short_address="127.1",
        short_address_of_three="127.0.1:8080",
        hex_address="0x7f.1",
        hex_number="0x7f000001",
        decimal_number="2130706433",
        decimal_number_and_port="2130706433:8080",
        octal_number="017700000001",
        octal_address="0177.0.0.1",
        leading_zeros="127.0.0.01",
        five_parts="127.0.0.1.1",
        part_too_large="127.0.0.256",
        punycode_of_a_look_alike="xn--lcalhost-54a",
        docker_host="host.docker.internal",
        an_underscore="my_box",
    ),
    *malformed(
        empty="",
        empty_host=":8080",
        a_blank=" ",
        a_dot=".",
        trailing_dot="localhost.",
        trailing_dot_and_port="localhost.:8080",
        trailing_dot_of_a_stranger="evil.example.",
        trailing_dot_of_an_address="127.0.0.1.",
        trailing_dot_of_an_allowed_name="llm.example.com.",
        leading_dot=".localhost",
        two_dots="evil..localhost",
        userinfo="localhost@evil.example",
        userinfo_of_a_stranger="evil.example@localhost",
        userinfo_and_password="user:pass@localhost",
        a_path="localhost/",
        a_path_of_a_stranger="evil.example/.localhost",
        a_scheme="http://localhost",
        a_query="localhost?.localhost",
        a_fragment="evil.example#.localhost",
        a_backslash="evil.example\\.localhost",
        a_percent="%6cocalhost",
        a_star="*",
        star_localhost="*.localhost",
        blank_before=" localhost",
        blank_after="localhost ",
        blank_within="evil.example localhost",
        tab="localhost\t",
        a_line_end="localhost\r\nX: y",
        newline_after="localhost\n",
        newline_before_localhost="evil.example\n.localhost",
        a_zero="localhost\0.evil.example",
        a_list="localhost, evil.example",
        a_list_without_a_blank="evil.example,localhost",
        a_semicolon="localhost;evil.example",
        quotes='"localhost"',
        port_zero="localhost:0",
        port_too_large="localhost:65536",
        port_huge="localhost:99999999999",
        port_empty="localhost:",
        port_with_leading_zeros="localhost:08080",
        port_with_a_sign="localhost:+8080",
        port_negative="localhost:-1",
        port_a_word="localhost:http",
        port_in_other_digits="localhost:８０８０",
        two_ports="localhost:8080:8080",
        port_of_a_stranger="localhost:8080.evil.example",
        port_and_userinfo="localhost:8080@evil.example",
        ipv6_without_brackets="::1",
        ipv6_half_open="[::1",
        ipv6_half_closed="::1]",
        ipv6_with_more_behind="[::1]evil.example",
        ipv6_with_a_name_behind="[::1].evil.example:8080",
        ipv6_that_is_none="[::g]",
        ipv6_of_nothing="[]",
        ipv6_with_a_zone="[fe80::1%25eth0]",
        ipv4_in_brackets="[127.0.0.1]",
        a_name_in_brackets="[localhost]",
        two_brackets="[[::1]]",
        not_ascii="müller.example",
        cyrillic_o="l\u043ecalhost",
        full_width="ｌｏｃａｌｈｏｓｔ",
        full_width_dot="evil.example．localhost",
        ideographic_dot="evil。localhost",
        kelvin_sign="\u212a.localhost",
        long_s="my\u017fbox",
        bytes_that_are_no_text="localhost\udcff",
        a_label_too_long="a" * 64 + ".localhost",
        a_name_too_long="a." * 130 + "localhost",
        a_hyphen_first="-localhost.localhost",
        a_hyphen_last="evil-.localhost",
    ),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_a_host_is_let_in_where_no_stranger_can_make_it_point_here(host: str, status: int) -> None:
    assert status_of(host, **NAMES) == status
    assert status_of(host, **NAMES, cors_origins=("*",)) == status, "CORS opens no Host"
    assert status_of(host, **NAMES, site="same-origin") == status, "rebinding is same-origin"


def test_a_stranger_cannot_make_its_host_good_by_an_origin_that_matches() -> None:
    evil = "evil.example:8080"
    assert status_of(evil, f"http://{evil}", site="same-origin", method="POST") == 403
    assert status_of(evil, f"http://{evil}", cors_origins=(f"http://{evil}",)) == 403
    assert status_of("localhost.", "http://localhost.", method="POST") == 400


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param([], id="none"),
        pytest.param(["localhost", "evil.example"], id="two"),
        pytest.param(["evil.example", "localhost"], id="two, the other way round"),
        pytest.param(["localhost", "localhost"], id="the same twice"),
    ],
)
def test_there_is_exactly_one_host(hosts: list[str]) -> None:
    assert status_of(hosts) == 400


@pytest.mark.parametrize(
    ("host", "origin", "tls"),
    [
        ("localhost:8080", "http://localhost:8080", False),
        ("LOCALHOST:8080", "http://localhost:8080", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("[::1]:8080", "http://[::1]:8080", False),
        ("[0:0::1]:8080", "http://[::1]:8080", False),
        ("localhost", "http://localhost", False),
        ("localhost:80", "http://localhost", False),
        ("localhost", "http://localhost:80", False),
        ("localhost:443", "https://localhost", True),
        ("localhost", "https://localhost", True),
        ("192.168.1.20:9000", "http://192.168.1.20:9000", False),
        ("chat.localhost:8080", "http://chat.localhost:8080", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_page_of_our_own_may_ask(host: str, origin: str, tls: bool, method: str) -> None:
    assert status_of(host, origin, method=method, tls=tls) == 0


@pytest.mark.parametrize(
    ("host", "origin", "tls"),
    [
        pytest.param("localhost:8080", "http://evil.example", False, id="a stranger"),
        pytest.param("localhost:8080", "http://localhost:3000", False, id="another port"),
        pytest.param("localhost:8080", "http://localhost", False, id="no port"),
        pytest.param("localhost", "http://localhost:8080", False, id="a port"),
        pytest.param("localhost:8080", "https://localhost:8080", False, id="https for http"),
        pytest.param("localhost:8080", "http://localhost:8080", True, id="http for https"),
        pytest.param("localhost:443", "https://localhost", False, id="https on http's port 443"),
        pytest.param("localhost:8080", "http://127.0.0.1:8080", False, id="an address for a name"),
        pytest.param("127.0.0.1:8080", "http://localhost:8080", False, id="a name for an address"),
        pytest.param("127.0.0.1:8080", "http://[::1]:8080", False, id="ipv6 for ipv4"),
        pytest.param("127.0.0.1:8080", "http://0.0.0.0:8080", False, id="the zero address"),
        pytest.param("localhost:8080", "http://localhost:8080.evil.example", False, id="a suffix"),
        pytest.param("localhost:8080", "http://evil.example?localhost:8080", False, id="a query"),
        pytest.param("localhost:8080", "http://localhost:8080@evil.example", False, id="userinfo"),
        pytest.param("localhost:8080", "http://evil@localhost:8080", False, id="another userinfo"),
        pytest.param("localhost:8080", "http://localhost.:8080", False, id="a trailing dot"),
        pytest.param("localhost:8080", "http://localhost:8080/", False, id="a slash"),
        pytest.param("localhost:8080", "//localhost:8080", False, id="no scheme"),
        pytest.param("localhost:8080", "localhost:8080", False, id="no scheme and no slashes"),
        pytest.param("localhost:8080", "http:localhost:8080", False, id="no slashes"),
        pytest.param("localhost:8080", "ws://localhost:8080", False, id="another scheme"),
        pytest.param("localhost:8080", "null", False, id="null: a file, a sandbox, a redirect"),
        pytest.param("localhost:8080", "NULL", False, id="null in capitals"),
        pytest.param("localhost:8080", "", False, id="empty"),
        pytest.param("localhost:8080", "*", False, id="a star"),
        pytest.param("localhost:8080", "http://localhost:8080 http://a", False, id="a list"),
        pytest.param("localhost:8080", "http://localhost:8080,http://a", False, id="with a comma"),
        pytest.param("localhost:8080", "http://l\u043ecalhost:8080", False, id="a look-alike"),
        pytest.param("localhost:8080", "http://localhost:8080\x00", False, id="a zero"),
        pytest.param("localhost:8080", "file://", False, id="a file"),
        pytest.param("localhost:8080", "chrome-extension://abcdefgh", False, id="an extension"),
    ],
)
@pytest.mark.parametrize("site", ["", "same-origin", "same-site", "cross-site", "none"])
def test_a_page_of_another_origin_may_not_ask_whatever_else_it_says(
    host: str, origin: str, tls: bool, site: str
) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
        assert (
            status_of(
                host, origin, method=method, tls=tls, site=site, mode="navigate", dest="document"
            )
            == 403
        )


def test_several_origins_are_refused_even_where_all_may_come() -> None:
    ours = "http://localhost:8080"
    for settings in ({}, {"cors_origins": ("*",)}):
        assert status_of("localhost:8080", [ours, ours], **settings) == 400
        assert status_of("localhost:8080", [ours, "http://evil.example"], **settings) == 400


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        (APP, APP),
        (APP, "https://app.example:443"),
        ("https://app.example:443", APP),
        ("https://App.Example", APP),
        ("https://müller.example:8443", "https://xn--mller-kva.example:8443"),
        ("http://192.168.1.9:3000", "http://192.168.1.9:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("tauri://localhost", "tauri://localhost"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:3000"),
        ("localhost", "https://localhost:3000"),
        ("localhost", "http://127.0.0.1"),
        ("localhost", "http://127.0.0.1:3000"),
        ("localhost", "http://[::1]"),
        ("localhost", "http://[::1]:3000"),
        ("*", "http://evil.example"),
        ("*", "null"),
        ("*", "web.mydomain.fr"),  # no origin, and yet llama.cpp's own tests send it
        ("*", "vscode-webview://0a1b2c"),
    ],
)
def test_pages_that_are_listed_may_ask_and_are_told_so(listed: str, origin: str) -> None:
    door = Door(cors_origins=("https://other.example", listed))
    assert door.check(["localhost:8080"], [origin], "cross-site", "POST") is None
    assert door.cors_headers([origin]) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
    }


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        (APP, "http://app.example"),
        (APP, "https://app.example:8443"),
        (APP, "https://app.example.evil.example"),
        (APP, "https://evil.app.example"),
        (APP, "https://evilapp.example"),
        (APP, "https://app.example."),
        (APP, "https://app.example@evil.example"),
        (APP, "https://appXexample"),
        (APP, "https://app.example/"),
        (APP, "null"),
        (APP, "*"),
        (APP, ""),
        ("localhost", "http://notlocalhost"),
        ("localhost", "http://localhost.evil.example"),
        ("localhost", "http://chat.localhost"),
        ("localhost", "http://127.0.0.1.evil.example"),
        ("localhost", "http://127.0.0.2"),
        ("localhost", "http://0.0.0.0:3000"),
        ("localhost", "http://127.1"),
        ("localhost", "ftp://localhost"),
        ("localhost", "localhost"),
        ("localhost", "null"),
        ("*", ""),
        ("*", "http://a b"),
        ("*", "http://ä"),
        ("*", "http://a\r\nSet-Cookie: b"),
    ],
)
def test_pages_that_are_not_listed_may_not_ask_and_get_no_header(listed: str, origin: str) -> None:
    door = Door(cors_origins=(listed,))
    for method in ("GET", "POST"):
        refusal = door.check(["localhost:8080"], [origin], "cross-site", method)
        assert refusal is not None
        assert refusal.status == 403
    assert door.cors_headers([origin]) == {"Vary": "Origin"}
    assert isinstance(door.preflight([origin], ""), Refusal)


def test_several_origins_are_given_no_header() -> None:
    assert Door(cors_origins=(APP,)).cors_headers([APP, "http://evil.example"]) == {
        "Vary": "Origin"
    }


def test_a_list_and_a_star_together_are_a_star() -> None:
    assert status_of(origin="http://evil.example", cors_origins=(APP, "*")) == 0


@pytest.mark.parametrize(
    ("what", "method", "site", "mode", "dest", "status"),
    [
        ("curl, an SDK", "POST", "", "", "", 0),
        ("an address typed in", "GET", "none", "navigate", "document", 0),
        ("our own page's script", "GET", "same-origin", "cors", "empty", 0),
        ("our own page's image", "GET", "same-origin", "no-cors", "image", 0),
        ("our own page's worker", "GET", "same-origin", "same-origin", "serviceworker", 0),
        ("a link from elsewhere", "GET", "cross-site", "navigate", "document", 0),
        ("a link from another port", "GET", "same-site", "navigate", "document", 0),
        ("an image from elsewhere", "GET", "cross-site", "no-cors", "image", 403),
        ("a script from elsewhere", "GET", "cross-site", "no-cors", "script", 403),
        ("a blind fetch", "GET", "cross-site", "no-cors", "empty", 403),
        ("a blind fetch from another port", "GET", "same-site", "no-cors", "empty", 403),
        ("a blind HEAD", "HEAD", "cross-site", "no-cors", "empty", 403),
        ("a blind POST", "POST", "cross-site", "no-cors", "empty", 403),
        ("a form from elsewhere", "POST", "cross-site", "navigate", "document", 403),
        ("a form from another port", "POST", "same-site", "navigate", "document", 403),
        ("a frame elsewhere", "GET", "cross-site", "navigate", "iframe", 403),
        ("a frame on another port", "GET", "same-site", "navigate", "iframe", 403),
        ("an object elsewhere", "GET", "cross-site", "navigate", "object", 403),
        ("an embed elsewhere", "GET", "cross-site", "navigate", "embed", 403),
        ("a document that is not navigated to", "GET", "cross-site", "no-cors", "document", 403),
        ("a navigation that does not say where to", "GET", "cross-site", "navigate", "", 403),
        ("a site alone", "GET", "cross-site", "", "", 403),
        ("a websocket from elsewhere", "GET", "cross-site", "websocket", "empty", 403),
        ("a site in capitals", "GET", "CROSS-SITE", "no-cors", "image", 403),
        ("a site that is none", "GET", "elsewhere", "no-cors", "image", 403),
        ("two sites in one", "GET", "none, cross-site", "no-cors", "image", 403),
    ],
)
def test_without_an_origin_other_pages_may_only_link(
    what: str, method: str, site: str, mode: str, dest: str, status: int
) -> None:
    assert status_of(method=method, site=site, mode=mode, dest=dest) == status, what
    listed = status_of(method=method, site=site, mode=mode, dest=dest, cors_origins=(APP,))
    assert listed == status, "nobody says that it is the listed page"
    every = status_of(method=method, site=site, mode=mode, dest=dest, cors_origins=("*",))
    assert every == 0, "every page may"


@pytest.mark.parametrize("origins", [[], ["http://localhost:8080"], ["http://evil.example"]])
def test_with_cors_off_no_header_is_ever_sent_and_preflights_are_refused(
    origins: list[str],
) -> None:
    door = Door()
    assert door.cors_headers(origins) == {}
    refusal = door.preflight(origins, "authorization")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 403


def test_with_cors_on_caches_are_told_that_answers_differ_also_where_no_page_asks() -> None:
    assert Door(cors_origins=("*",)).cors_headers([]) == {"Vary": "Origin"}


@pytest.mark.parametrize("listed", [APP, "*"])
def test_a_preflight_of_a_listed_page_is_answered(listed: str) -> None:
    door = Door(cors_origins=(listed,))
    assert door.check(["localhost:8080"], [APP], "cross-site", "OPTIONS") is None
    assert door.preflight([APP], "authorization,content-type, x-stainless-os") == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "authorization, content-type, x-stainless-os",
        "Access-Control-Max-Age": "7200",
    }


def test_a_preflight_that_asks_for_no_header_is_given_none() -> None:
    answer = Door(cors_origins=(APP,)).preflight([APP], "")
    assert isinstance(answer, dict)
    assert "Access-Control-Allow-Headers" not in answer


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("a b", id="a blank within"),
        pytest.param("authorization\r\nSet-Cookie: a", id="a line end"),
        pytest.param("a\x00", id="a zero"),
        pytest.param("ä", id="not ASCII"),
        pytest.param("a,,b", id="an empty one"),
        pytest.param("a,", id="an empty one at the end"),
        pytest.param("a: b", id="a value"),
        pytest.param('"a"', id="quotes"),
    ],
)
def test_a_preflight_names_headers_and_nothing_else(asked: str) -> None:
    refusal = Door(cors_origins=("*",)).preflight([APP], asked)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


@pytest.mark.parametrize("listed", [(APP,), ("localhost",), ("*",)])
def test_no_page_is_given_the_cookies_of_others(listed: tuple[str, ...]) -> None:
    door = Door(cors_origins=listed)
    for origin in (APP, "http://localhost:3000", "null"):
        answers = [door.cors_headers([origin]), door.preflight([origin], "authorization")]
        names = {name for answer in answers if isinstance(answer, dict) for name in answer}
        assert "Access-Control-Allow-Credentials" not in names
        assert all(
            answer.get("Access-Control-Allow-Origin") in (None, origin)
            for answer in answers
            if isinstance(answer, dict)
        ), "never a bare star"


def test_a_person_may_allow_what_the_rules_do_not() -> None:
    assert status_of("0.0.0.0:8080", allowed_hosts=("0.0.0.0",)) == 0


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example",
        ".example",
        "http://a.example",
        "a.example:80",
        "a.example.",
        "a b",
        "::1",
    ],
)
def test_an_allowed_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="allowed_hosts has"):
        Door(allowed_hosts=(host,))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example",
        "https://",
        "https://a/",
        "https://a:0",
        "https://*.a",
        "null",
        "http://a b",
    ],
)
def test_a_cors_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(UsageError, match="cors_origins has"):
        Door(cors_origins=(origin,))


def test_a_refusal_says_what_to_change() -> None:
    door = Door()
    strange_host = door.check(["evil.example"], [], "", "GET")
    strange_page = door.check(["localhost"], ["http://evil.example"], "", "GET")
    assert strange_host == Refusal(403, "evil.example is no name of this server; see allowed_hosts")
    assert strange_page == Refusal(
        403, "pages of the origin http://evil.example may not use this server; see cors_origins"
    )
