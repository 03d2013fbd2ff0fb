"""Plain URLs as sources, and URLs that are really a hub's."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from urllib.parse import quote

import pytest

from localllm.digests import Claim
from localllm.errors import (
    AccessError,
    IntegrityError,
    LocalllmError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from localllm.hub.patience import Limits
from localllm.hub.web import Web
from localllm.hub.weburl import WebUrl, _attached_name, as_hub_ref
from localllm.variants import RepoFile, group_files
from tests.loopback_hub import (
    Changed,
    Fault,
    Generated,
    Gone,
    IgnoreRange,
    LoopbackHub,
    NotJson,
    RedirectTo,
    ServerError,
    TooManyRequests,
)
from tests.loopback_hub.messages import Reply, Request, whole

DATA = b"GGUF" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
CANARY = "s3cr3t-canary"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def web() -> Web:
    return Web(Limits(backoff_seconds=0.01))


@dataclass(frozen=True)
class With(Fault):
    """The right reply with one header more; without one where the value is empty."""

    name: str
    value: str
    routes = frozenset(("files",))

    def spoil(self, request: Request, reply: Reply) -> Reply:
        headers = {**reply.headers, self.name: self.value}
        return replace(reply, headers={k: v for k, v in headers.items() if v})


def host(hub: LoopbackHub) -> str:
    return hub.files_endpoint.removeprefix("http://")


def test_a_url_is_a_repository_of_one_file(hub: LoopbackHub, web: Web) -> None:
    source = WebUrl(web, hub.add_file("a b/m Q4_K_M.gguf", DATA))
    listing = source.listing()
    assert listing.files == (RepoFile("m Q4_K_M.gguf", len(DATA)),)
    assert listing.repo == source.repo == f"{hub.files_endpoint}/files/a%20b"
    assert (listing.authority, listing.is_origin) == (host(hub), False)
    assert source.key == f"url:{listing.repo}/m%20Q4_K_M.gguf"
    assert len(hub.requests) == 1
    assert hub.sent_bytes() <= 1
    remote = source.remote(listing, listing.files[0])
    assert remote.read(0, 2**20) == DATA
    assert remote.name == "m Q4_K_M.gguf"


def test_the_revision_is_the_same_until_the_server_says_otherwise(
    hub: LoopbackHub, web: Web
) -> None:
    url = hub.add_file("m.gguf", DATA)
    first = WebUrl(web, url).listing().revision
    assert WebUrl(web, f"{url}?token=another").listing().revision == first
    hub.misbehave(Changed(DATA[::-1]))
    assert WebUrl(web, url).listing().revision != first


def test_a_file_behind_a_redirect_has_a_revision_that_changes_with_it(
    hub: LoopbackHub, web: Web
) -> None:
    hub.add_file("1", DATA)
    hub.add_file("2", DATA[::-1])
    revisions = set()
    for target in "1", "2", "1":
        url = hub.add_redirect("latest.gguf", f"/files/{target}")
        revisions.add(WebUrl(web, url).listing().revision)
    assert len(revisions) == 2


def test_a_server_without_ranges_still_says_the_size(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.ranges = False
    source = WebUrl(web, url)
    listing = source.listing()
    assert listing.files[0].size_bytes == len(DATA)
    assert source.remote(listing, listing.files[0]).read(4, 4) == DATA[4:8]


@pytest.mark.parametrize("asked", [1, 3])
def test_all_shards_of_a_set_are_found_from_any(hub: LoopbackHub, web: Web, asked: int) -> None:
    names = [f"a b-{no:05d}-of-00003.gguf" for no in (1, 2, 3)]
    urls = [hub.add_file(name, DATA + name.encode()) for name in names]
    source = WebUrl(web, f"{urls[asked - 1]}?token={CANARY}")
    listing = source.listing()
    assert [file.path for file in listing.files] == names
    assert {file.size_bytes for file in listing.files} == {len(DATA) + len(names[0])}
    (variant,) = group_files(listing.files)
    assert variant.is_complete
    for file in listing.files:
        assert source.remote(listing, file).read(len(DATA), 99) == file.path.encode()
    assert all(seen.target.endswith(f"?token={CANARY}") for seen in hub.requests)


def test_a_set_with_a_shard_missing_is_listed_as_incomplete(hub: LoopbackHub, web: Web) -> None:
    for no in (1, 3):
        url = hub.add_file(f"m-{no:05d}-of-00003.gguf", DATA)
    (variant,) = group_files(WebUrl(web, url).listing().files)
    assert variant.missing == (2,)
    assert variant.unusable is not None


def test_a_shard_that_is_refused_is_not_taken_for_missing(hub: LoopbackHub, web: Web) -> None:
    for no in (1, 2):
        url = hub.add_file(f"m-{no:05d}-of-00002.gguf", DATA)
    hub.misbehave(ServerError(), file="*-00001-of-*")
    with pytest.raises(NetworkError):
        WebUrl(web, url).listing()


def test_user_and_password_go_to_their_server_alone_and_are_never_shown(
    hub: LoopbackHub, web: Web
) -> None:
    hub.add_repo("org/repo", {"m.gguf": DATA})
    commit = hub.repositories["org/repo"].branches["main"]
    hub.add_redirect("m.gguf", hub.signed_url("org/repo", commit, "m.gguf"))
    hub.add_file("m.gguf.sha256", SHA256.encode())
    url = f"http://us%40er:{CANARY}@{host(hub)}/files/m.gguf?key={CANARY}#{CANARY}"
    source = WebUrl(web, url)
    listing = source.listing()
    remote = source.remote(listing, listing.files[0])
    assert remote.read(0, 2**20) == DATA
    claims = source.checksums(listing, listing.files[0])
    assert claims == (Claim("sha256", SHA256, f"m.gguf.sha256 of {host(hub)}", "transfer"),)
    for seen in hub.requests:
        if seen.endpoint == hub.files_endpoint:
            assert seen.authorization is not None
            decoded = base64.b64decode(seen.authorization.removeprefix("Basic "))
            assert decoded == f"us@er:{CANARY}".encode()
        else:
            assert seen.authorization is None
    hidden = base64.b64encode(f"us@er:{CANARY}".encode()).decode()
    shown = repr((listing, source.key, source.repo, remote.name, claims, source._credentials))
    assert CANARY not in shown
    assert hidden not in shown


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Gone(), id="404"),
        pytest.param(ServerError(), id="503"),
        pytest.param(TooManyRequests(0), id="429-again-in-0-seconds"),
        pytest.param(NotJson(), id="a-page"),
        pytest.param(RedirectTo("file:///etc/passwd"), id="file"),
        pytest.param(RedirectTo("http://[::1"), id="no-address"),
        pytest.param(
            RedirectTo(f"http://x:{CANARY}@[bad]/?{CANARY}"), id="no-address-with-secrets"
        ),
        pytest.param(RedirectTo("?again"), id="circle"),
        pytest.param(With("Content-Range", "bytes 0-0/*"), id="size-unsaid"),
        pytest.param(With("Content-Range", f"bytes 0-0/{'9' * 5000}"), id="size-of-5000-digits"),
        pytest.param(With("Content-Range", "bytes 0-0/²"), id="size-no-digit"),
    ],
)
def test_errors_hold_no_secret(hub: LoopbackHub, web: Web, fault: Fault) -> None:
    hub.add_file("m.gguf", DATA)
    hub.misbehave(fault, on=("files",))
    url = f"http://user:{CANARY}@{host(hub)}/files/m.gguf?key={CANARY}"
    with pytest.raises((NetworkError, NotFoundError)) as caught:
        WebUrl(web, url).listing()
    error = caught.value
    assert CANARY not in f"{error.message} {error.hint}"
    assert error.__cause__ is None
    assert host(hub) in error.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_a_matter_of_access(hub: LoopbackHub, web: Web, status: int) -> None:
    @dataclass(frozen=True)
    class Refusal(Fault):
        routes = frozenset(("files",))

        def spoil(self, request: Request, reply: Reply) -> Reply:
            return replace(reply, status=status)

    hub.misbehave(Refusal())
    with pytest.raises(AccessError):
        WebUrl(web, hub.add_file("m.gguf", DATA)).listing()


def test_a_web_page_is_not_a_model(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", b"<!doctype html>")
    hub.misbehave(With("Content-Type", "Text/HTML; charset=utf-8"))
    with pytest.raises(NotFoundError, match="is a web page, not a model"):
        WebUrl(web, url).listing()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        pytest.param('attachment; filename="m Q4_0.gguf"', "m Q4_0.gguf", id="quoted"),
        pytest.param("attachment; filename=m.LLAMAFILE", "m.LLAMAFILE", id="llamafile"),
        pytest.param("inline; filename*=UTF-8''%E6%A8%A1.gguf", "模.gguf", id="encoded"),
        pytest.param('attachment; filename="../../m.gguf"', "m.gguf", id="climbs"),
        pytest.param(
            "attachment; filename*=UTF-8''..%2F..%2Fm.gguf", "m.gguf", id="climbs-encoded"
        ),
    ],
)
def test_a_url_without_a_name_takes_the_servers(
    hub: LoopbackHub, web: Web, value: str, name: str
) -> None:
    url = f"{hub.add_file('download', DATA)}?id=3"
    hub.misbehave(With("Content-Disposition", value))
    source = WebUrl(web, url)
    listing = source.listing()
    assert [file.path for file in listing.files] == [name]
    assert source.remote(listing, listing.files[0]).read(0, 4) == b"GGUF"
    assert source.checksums(listing, listing.files[0]) == ()
    assert {seen.target for seen in hub.requests} == {"/files/download?id=3"}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="unsaid"),
        pytest.param("attachment", id="no-name"),
        pytest.param('attachment; filename="setup.exe"', id="no-model"),
        pytest.param('attachment; filename=".gguf/"', id="folder"),
        pytest.param("attachment; filename*=bogus''%ff.exe", id="no-charset"),
    ],
)
def test_a_url_that_nobody_names_is_refused_with_a_hint(
    hub: LoopbackHub, web: Web, value: str
) -> None:
    url = f"{hub.add_file('download', DATA)}?id={CANARY}"
    hub.misbehave(With("Content-Disposition", value))
    with pytest.raises(UsageError, match="does not say which file") as caught:
        WebUrl(web, url).listing()
    assert caught.value.hint is not None
    assert CANARY not in caught.value.message


HOSTILE = [
    "con.gguf",
    "a\\..\\m.gguf",
    "C:m.gguf",
    "m\x07.gguf",
    "m\u202e.gguf",
    "%2e%2e.gguf",
    "a" * 300 + ".gguf",
    "nul .gguf",
    "m?.gguf",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_in_a_url_is_refused(web: Web, name: str) -> None:
    with pytest.raises(IntegrityError):
        WebUrl(web, f"https://a.example/{quote(name, safe='')}")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_by_the_server_is_refused(hub: LoopbackHub, web: Web, name: str) -> None:
    source = WebUrl(web, hub.add_file("download", DATA))
    hub.misbehave(With("Content-Disposition", f"inline; filename*=UTF-8''{quote(name)}"))
    with pytest.raises(IntegrityError):
        source.listing()


def test_mutated_names_of_a_server_never_crash() -> None:
    rng = random.Random(4)
    seed = "attachment; filename*=UTF-8''%E6%A8%A1.gguf; filename*0*=a''b; filename=\"m.gguf\""
    for _ in range(3000):
        value = list(seed)
        for _ in range(rng.randrange(1, 6)):
            value[rng.randrange(len(value))] = rng.choice("=;*'\"%\\ \x80\xff0aUé\t")
        message = Message()
        message["Content-Disposition"] = "".join(value)

        class Answer:
            headers = message

        name = _attached_name(Answer())  # type: ignore[arg-type]
        assert name is None or isinstance(name, str)


@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://a/m.gguf", "http://[::1/m.gguf", f"http://u:{CANARY}@[x]/m.gguf", "m.gguf"],
)
def test_what_is_no_web_address_is_refused(web: Web, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        WebUrl(web, url)
    assert CANARY not in caught.value.message


def test_keys_tell_files_apart_and_secrets_not_at_all(web: Web) -> None:
    def key(url: str) -> str:
        return WebUrl(web, url).key

    assert key("https://a.example/m.gguf?sig=1") == key("https://a.example/m.gguf?sig=2")
    assert key("https://a.example/m.gguf") == "url:https://a.example/m.gguf"
    assert key("https://a.example/get?id=1") != key("https://a.example/get?id=2")
    assert CANARY not in key(f"https://u:{CANARY}@a.example/get?id={CANARY}")


MIRROR = "https://mirror.example:8443"


@pytest.mark.parametrize(
    ("url", "text", "file"),
    [
        ("https://huggingface.co/org/repo", "hf:org/repo", None),
        ("https://hf.co/org/repo/", "hf:org/repo", None),
        (f"{MIRROR}/org/repo/tree/v1", "hf:org/repo@v1", None),
        ("https://huggingface.co/org/repo/tree/main/Q4", "hf:org/repo@main", None),
        (
            "https://huggingface.co/org/repo/resolve/main/a/b%20c.gguf?download=true",
            "hf:org/repo@main",
            "a/b c.gguf",
        ),
        (
            "https://huggingface.co/org/re.po/blob/refs%2Fpr%2F1/m.gguf",
            "hf:org/re.po@refs/pr/1",
            "m.gguf",
        ),
        ("https://modelscope.cn/models/org/repo", "ms:org/repo", None),
        ("https://www.modelscope.cn/models/org/repo/files", "ms:org/repo", None),
        (
            "https://modelscope.cn/models/org/repo/resolve/master/m.gguf",
            "ms:org/repo@master",
            "m.gguf",
        ),
        (
            "https://modelscope.cn/models/org/repo/file/view/master/Q4/m.gguf?status=2",
            "ms:org/repo@master",
            "Q4/m.gguf",
        ),
    ],
)
def test_an_address_of_a_hub_is_its_repository(url: str, text: str, file: str | None) -> None:
    found = as_hub_ref(url, MIRROR)
    assert found is not None
    assert (found[0].text, found[0].kind, found[1]) == (text, text[:2], file)
    assert found[0].repo in ("org/repo", "org/re.po")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/org/repo",
        "https://huggingface.co/",
        "https://huggingface.co/org",
        "https://huggingface.co/datasets/org",
        "https://huggingface.co/datasets/org/repo",
        "https://huggingface.co/api/models/org/repo",
        "https://huggingface.co/org/repo/discussions/1",
        "https://huggingface.co/org/repo/resolve/main",
        "https://huggingface.co/o%20rg/repo",
        "https://huggingface.co/org/repo/tree/..",
        "https://huggingface.co.example.org/org/repo",
        "https://user:pass@huggingface.co/org/repo",
        "https://mirror.example/org/repo",
        "https://modelscope.cn/org/repo",
        "https://modelscope.cn/datasets/org/repo",
    ],
)
def test_any_other_address_is_none(url: str) -> None:
    assert as_hub_ref(url, MIRROR) is None


def test_ignored_ranges_are_no_reason_to_fetch_a_file(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.misbehave(IgnoreRange())
    assert WebUrl(web, url).listing().files[0].size_bytes == len(DATA)


def test_hostile_addresses_never_crash(web: Web) -> None:
    rng = random.Random(5)
    seeds = [
        "https://huggingface.co/org/repo/resolve/main/a/b.gguf?x=1#y",
        "http://u:p@127.0.0.1:80/a/m-00001-of-00002.gguf",
        "https://modelscope.cn/models/org/repo/file/view/master/m.gguf",
    ]
    for _ in range(3000):
        url = list(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            url[rng.randrange(len(url))] = rng.choice("/:@%[]?#\\. \x00\x7f\ud800é℀")
        try:
            if as_hub_ref("".join(url), MIRROR) is None:
                assert WebUrl(web, "".join(url)).key.startswith("url:")
        except LocalllmError:
            pass


def test_a_wait_that_is_no_number_is_none(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.misbehave(ServerError(503))
    for value in "²", "Fri, 99 Nov 99999 99:99:99 GMT", "-1":
        hub.misbehave(With("Retry-After", value))
        with pytest.raises(NetworkError, match="fails to send"):
            WebUrl(web, url).listing()


def test_a_redirect_with_a_page_without_end_is_followed(hub: LoopbackHub, web: Web) -> None:
    @dataclass(frozen=True)
    class LongGoodbye(Fault):
        routes = frozenset(("files",))

        def spoil(self, request: Request, reply: Reply) -> Reply | None:
            page = whole(302, Generated(2**40), reply.headers)
            return replace(page, route="files", file=reply.file) if reply.status == 302 else None

    hub.add_file("there.gguf", DATA)
    url = hub.add_redirect("m.gguf", "there.gguf")
    hub.misbehave(LongGoodbye())
    assert WebUrl(web, url).listing().files == (RepoFile("m.gguf", len(DATA)),)
    assert hub.sent_bytes("m.gguf") < 2**26
