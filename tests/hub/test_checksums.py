"""Checksum files beside models, on a server and in a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from localllm.digests import Claim
from localllm.hub.address import Credentials, Secret
from localllm.hub.checksums import listed_side_cars, read_listed, read_side_car, side_cars
from localllm.hub.modelscope import ModelScope
from localllm.hub.patience import Limits
from localllm.hub.source import Listing
from localllm.hub.web import Web
from localllm.variants import RepoFile
from tests.loopback_hub import Generated, LoopbackHub, NotJson, ServerError

DATA = b"GGUF, or so"
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def web() -> Web:
    return Web(Limits(backoff_seconds=0.01))


def asked(hub: LoopbackHub) -> list[str]:
    return [seen.target.removeprefix("/files/") for seen in hub.requests]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("m.gguf.sha256", SHA256, ("sha256", SHA256), id="sha256"),
        pytest.param("m.gguf.md5", f"{MD5}  m.gguf\n", ("md5", MD5), id="md5"),
        pytest.param("SHA256SUMS", f"{SHA256}  m.gguf\n", ("sha256", SHA256), id="sha256sums"),
        pytest.param("sha512sums", f"{SHA512}  m.gguf\n", ("sha512", SHA512), id="lower-case"),
        pytest.param("MD5SUMS", f"MD5 (m.gguf) = {MD5}\n", ("md5", MD5), id="md5sums"),
        pytest.param("m.gguf.sha256", "\ufeff" + SHA256, ("sha256", SHA256), id="byte-order-mark"),
    ],
)
def test_each_kind_of_side_car_is_found_and_named(
    hub: LoopbackHub, web: Web, name: str, text: str, expected: tuple[str, str]
) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.add_file(name, text.encode())
    (claim,) = side_cars(web, url, "m.gguf")
    host = hub.files_endpoint.removeprefix("http://")
    assert (claim.algorithm, claim.hex) == expected
    assert (claim.by, claim.proves) == (f"{name} of {host}", "transfer")


def test_nobody_is_asked_further_once_a_sha256_is_found(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.add_file("m.gguf.sha256", SHA256.encode())
    hub.add_file("m.gguf.md5", MD5.encode())
    assert [claim.algorithm for claim in side_cars(web, url, "m.gguf")] == ["sha256"]
    assert asked(hub) == ["m.gguf.sha256"]


def test_a_folder_without_side_cars_is_asked_once_for_each_and_proves_nothing(
    hub: LoopbackHub, web: Web
) -> None:
    url = hub.add_file("m.gguf", DATA)
    assert side_cars(web, url, "m.gguf") == ()
    assert len(asked(hub)) == len(set(asked(hub))) == 9


def test_a_failing_server_is_asked_once_and_is_no_error(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.misbehave(ServerError())
    assert side_cars(web, url, "m.gguf") == ()
    assert len(hub.requests) == 1


def test_a_server_that_is_away_is_no_error(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.files.close()
    assert side_cars(web, url, "m.gguf") == ()


def test_a_page_where_a_checksum_file_should_be_is_none(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.misbehave(NotJson(), on=("files",))
    assert side_cars(web, url, "m.gguf") == ()


def test_a_checksum_file_that_does_not_end_is_left(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("m.gguf", DATA)
    hub.add_file("m.gguf.sha256", Generated(2**40, head=SHA256.encode() + b"  m.gguf\n"))
    assert side_cars(web, url, "m.gguf") == ()
    assert hub.sent_bytes("m.gguf.sha256") < 2**26


def test_the_query_goes_along_and_credentials_with_it(hub: LoopbackHub, web: Web) -> None:
    url = hub.add_file("a b.gguf", DATA)
    hub.add_file("SHA256SUMS", f"{SHA256}  a b.gguf".encode())
    credentials = Credentials(hub.files_endpoint, {"Authorization": Secret("Basic canary")})
    (claim,) = side_cars(web, f"{url}?token=canary", "a b.gguf", credentials)
    assert "canary" not in repr(claim)
    assert asked(hub) == ["a%20b.gguf.sha256?token=canary", "SHA256SUMS?token=canary"]
    assert {seen.authorization for seen in hub.requests} == {"Basic canary"}


def test_digits_alone_are_no_answer_in_a_list_of_sums() -> None:
    assert read_side_car(OTHER.encode(), "SHA256SUMS", "m.gguf", "x") == ()
    assert len(read_side_car(OTHER.encode(), "m.gguf.sha256", "m.gguf", "x")) == 1


def listing(*paths: str, size_bytes: int = 100, is_origin: bool = True) -> Listing:
    files = tuple(RepoFile(path, size_bytes) for path in paths)
    return Listing("hf", "org/repo", "main", "0" * 40, files, "huggingface.co", is_origin)


def test_side_cars_are_picked_from_a_listing_the_strongest_first() -> None:
    there = listing(
        "Q4/m.gguf", "Q4/m.gguf.md5", "md5sums", "Q4/SHA256SUMS", "Q8/SHA256SUMS", "n.gguf.md5"
    )
    paths = [each.path for each in listed_side_cars(there, there.files[0])]
    assert paths == ["Q4/m.gguf.md5", "Q4/SHA256SUMS", "md5sums"]


def test_a_side_car_of_more_than_a_mebibyte_is_none() -> None:
    there = listing("m.gguf", "m.gguf.md5", size_bytes=2**20 + 1)
    assert listed_side_cars(there, there.files[0]) == ()


def test_all_checksum_files_of_a_repository_are_heard(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(
        "org/repo",
        {
            "Q4/m.gguf": DATA,
            "m.gguf": b"another",
            "Q4/m.gguf.md5": MD5.encode(),
            "SHA256SUMS": f"{OTHER}  m.gguf\n{SHA256}  Q4/m.gguf\n".encode(),
        },
    )
    source = ModelScope(web, "org/repo", endpoint=hub.modelscope_endpoint)
    there = source.listing()
    file = next(each for each in there.files if each.path == "Q4/m.gguf")
    host = hub.modelscope_endpoint.removeprefix("http://")
    expected = {
        Claim("md5", MD5, f"Q4/m.gguf.md5 of {host}", "transfer"),
        Claim("sha256", SHA256, f"SHA256SUMS of {host}", "transfer"),
    }
    assert set(source.checksums(there, file)) == expected
    of_the_publisher = Listing(**{**vars(there), "is_origin": True})
    claims = read_listed(source, of_the_publisher, file)
    assert {claim.proves for claim in claims} == {"origin"}


def test_a_listed_checksum_file_that_cannot_be_had_proves_nothing(
    hub: LoopbackHub, web: Web
) -> None:
    hub.add_repo("org/repo", {"m.gguf": DATA, "m.gguf.md5": MD5.encode()})
    source = ModelScope(web, "org/repo", endpoint=hub.modelscope_endpoint)
    there = source.listing()
    hub.misbehave(ServerError(), file="*.md5")
    assert source.checksums(there, there.files[0]) == ()
