"""The Hugging Face hub as a source: what it lists, how it refuses, what a mirror is worth."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError
from localllm.hub import open_source
from localllm.hub.huggingface import HuggingFace
from localllm.hub.patience import Limits
from localllm.hub.source import Source
from localllm.hub.web import Web
from localllm.naming import parse_ref
from tests.loopback_hub import (
    CutJson,
    Fault,
    LoopbackHub,
    NotJson,
    ServerError,
    TooManyRequests,
)
from tests.loopback_hub.contents import Memory
from tests.loopback_hub.messages import Reply, Request, whole

DATA = b"GGUF" + bytes(5000)
QUICK = Limits(connect_seconds=5, idle_seconds=5, attempts=3, backoff_seconds=0.01)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def source(repo: str = "org/m", revision: str | None = None) -> HuggingFace:
    return HuggingFace(Web(QUICK), repo, revision)


def test_a_listing_has_sizes_digests_and_the_commit(hub: LoopbackHub) -> None:
    commit = hub.add_repo("org/m", {"m-Q8_0.gguf": DATA, "README.md": b"hello"})
    listing = source().listing()
    files = {file.path: file for file in listing.files}
    assert listing.revision == commit
    assert (listing.kind, listing.repo, listing.asked) == ("hf", "org/m", "main")
    assert files["m-Q8_0.gguf"].size_bytes == len(DATA)
    assert files["m-Q8_0.gguf"].sha256 == hashlib.sha256(DATA).hexdigest()
    assert files["README.md"].git_sha1 == hashlib.sha1(b"blob 5\0hello").hexdigest()
    assert files["README.md"].sha256 is None


def test_a_revision_is_pinned_to_its_commit(hub: LoopbackHub) -> None:
    first = hub.add_repo("org/m", {"m.gguf": DATA})
    second = hub.commit("org/m", {"m.gguf": DATA * 2})
    hub.tag("org/m", "v1", first)
    assert source().listing().revision == second
    assert source(revision="v1").listing().revision == first
    assert source(revision=first).listing().revision == first
    old = source(revision="v1")
    listing = old.listing()
    remote = old.remote(listing, listing.files[0])
    assert remote.read(0, 10**6) == DATA
    assert f"/resolve/{first}/" in next(s.target for s in hub.requests if s.route == "resolve")


def test_a_mirrors_word_proves_a_transfer_and_the_hubs_own_the_origin(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA})
    listing = source().listing()
    (claim,) = listing.claims(listing.files[0])
    assert (claim.algorithm, claim.proves) == ("sha256", "transfer")
    assert claim.by == hub.endpoint.removeprefix("http://")
    monkeypatch.delenv("HF_ENDPOINT")
    assert source().key == "hf:org/m@main"


def test_a_mirror_is_remembered_apart_from_the_hub(hub: LoopbackHub) -> None:
    assert source().key == f"hf:org/m@main at {hub.endpoint.removeprefix('http://')}"


def test_a_gated_repository_wants_consent_and_gives_after_it(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA}, gated="manual")
    listing = source().listing()
    assert listing.gated
    with pytest.raises(AccessError) as caught:
        source().remote(listing, listing.files[0]).read(0, 10)
    assert "consent" in caught.value.message
    assert "HF_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.grant("org/m")
    assert source().remote(listing, listing.files[0]).read(0, 4) == b"GGUF"
    assert hub.leaks == []


def test_a_private_repository_is_there_for_its_token_alone(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA}, private=True)
    with pytest.raises(NotFoundError) as caught:
        source().listing()
    assert "HF_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert len(source().listing().files) == 1


@pytest.mark.parametrize(
    ("revision", "said"), [(None, "there is no org/none"), ("v9", "has no revision 'v9'")]
)
def test_what_is_not_there_is_not_found(hub: LoopbackHub, revision: str | None, said: str) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA})
    with pytest.raises(NotFoundError, match=said):
        source("org/none" if revision is None else "org/m", revision).listing()


@pytest.mark.parametrize(
    "fault",
    [NotJson(), CutJson(10), ServerError(502), TooManyRequests(600)],
    ids=["a web page", "half an answer", "a broken server", "a busy server"],
)
def test_a_hub_that_does_not_answer_as_one_is_a_network_error(
    hub: LoopbackHub, fault: NotJson | CutJson | ServerError | TooManyRequests
) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA})
    hub.misbehave(fault)
    with pytest.raises(NetworkError) as caught:
        source().listing()
    assert caught.value.exit_code == 5
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"siblings": [{"rfilename": None, "size": 1}]},
        {"siblings": [{"rfilename": 7, "size": 1}]},
        {"siblings": [{"rfilename": "m.gguf", "size": "12"}]},
        {"siblings": [{"rfilename": "m.gguf", "size": -1}]},
        {"siblings": [{"rfilename": "m.gguf", "size": 1.5}]},
        {"siblings": [{"rfilename": "m.gguf", "size": 5, "lfs": {"sha256": "../x", "size": 5}}]},
        {"siblings": [{"rfilename": "m.gguf", "size": 5, "lfs": []}]},
        {"siblings": "m.gguf"},
        {"siblings": None},
        {"sha": 7},
        {"sha": "../../x"},
        {"sha": None},
        {"siblings": [[]]},
    ],
    ids=str,
)
def test_metadata_of_another_kind_is_left_out_or_told(
    hub: LoopbackHub, change: dict[str, object]
) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA})
    hub.misbehave(_Says(change))
    listing = None
    with contextlib.suppress(NetworkError):
        listing = source().listing()
    if listing is not None:
        assert all(file.sha256 is None and file.size_bytes >= 0 for file in listing.files)
        assert len(listing.revision) == 40


@dataclass(frozen=True)
class _Says(Fault):
    """Metadata in which some fields are others."""

    change: dict[str, object]
    routes = frozenset(("api",))

    def spoil(self, request: Request, reply: Reply) -> Reply:
        told = json.loads(reply.content.read(0, reply.content.size_bytes))
        raw = Memory(json.dumps({**told, **self.change}).encode())
        return whole(200, raw, {"Content-Type": "application/json"})


def test_a_hub_that_falters_once_is_asked_again(hub: LoopbackHub) -> None:
    hub.add_repo("org/m", {"m.gguf": DATA})
    hub.misbehave(ServerError(500), times=1)
    assert len(source().listing().files) == 1


def test_nobody_there_is_a_network_error(hub: LoopbackHub) -> None:
    hub.close()
    with pytest.raises(NetworkError, match="cannot be reached"):
        source().listing()


@pytest.mark.parametrize("repo", ["org/a--b", "org/-x", "org/x.git", "org/.."])
def test_a_name_that_the_hub_cannot_have_is_told(hub: LoopbackHub, repo: str) -> None:
    with pytest.raises(LocalllmError) as caught:
        source(repo).listing()
    assert caught.value.exit_code in (2, 3)


@pytest.mark.parametrize(
    ("ref", "key", "file"),
    [
        ("org/m", "hf:org/m@main", None),
        ("org/m@v1:Q8_0", "hf:org/m@v1", None),
        ("ms:org/m", "ms:org/m@master", None),
        ("https://huggingface.co/org/m/blob/main/a/x.gguf", "hf:org/m@main", "a/x.gguf"),
        ("https://huggingface.co/org/m/resolve/v2/x.gguf", "hf:org/m@v2", "x.gguf"),
        ("https://example.org/a/x.gguf?token=1", "url:https://example.org/a/x.gguf", None),
    ],
)
def test_a_reference_opens_its_source(
    ref: str, key: str, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    opened, found = open_source(parse_ref(ref), Web(offline=True))
    assert isinstance(opened, Source)
    assert (opened.key, found) == (key, file)
