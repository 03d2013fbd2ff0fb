"""ModelScope as a source: listings that are whole, commits, refusals, tokens that stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from localllm.errors import (
    AccessError,
    LocalllmError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from localllm.hub import modelscope
from localllm.hub.modelscope import ModelScope
from localllm.hub.patience import Limits
from localllm.hub.web import Web
from localllm.variants import RepoFile
from tests.loopback_hub import CutJson, Fault, HugeJson, LoopbackHub, NotJson, ServerError
from tests.loopback_hub.messages import Reply, Request, json_reply

REPO = "org/repo"
TOKEN = "ms-canary"
DATA = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.token = TOKEN
        yield hub


@pytest.fixture
def web() -> Web:
    return Web(Limits(backoff_seconds=0.01, document_bytes=2**20))


@dataclass(frozen=True)
class Edited(Fault):
    """The answer of the list of files, changed as a test likes."""

    edit: Callable[[dict[str, Any]], Any]
    routes = frozenset(("modelscope-api",))

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        if not request.path.endswith("/repo/files") or reply.status != 200:
            return None
        answer = json.loads(reply.content.read(0, reply.content.size_bytes))
        edited = json_reply(200, self.edit(answer))
        return Reply(**{**vars(edited), "route": reply.route, "file": reply.file})


def source(hub: LoopbackHub, web: Web, revision: str | None = None, **more: Any) -> ModelScope:
    return ModelScope(web, REPO, revision, endpoint=hub.modelscope_endpoint, **more)


def with_commit(commit: str) -> Edited:
    """As the real one tells the last commit: its first digits alone."""

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        answer["Data"]["LatestCommitter"] = {"Id": "", "ShortId": commit[:8]}
        return answer

    return Edited(edit)


def test_a_listing_has_sizes_digests_and_folders(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"Q4/m.gguf": DATA, "README.md": b"# m"})
    listing = source(hub, web).listing()
    assert set(listing.files) == {
        RepoFile("Q4/m.gguf", len(DATA), hashlib.sha256(DATA).hexdigest()),
        RepoFile("README.md", 3, hashlib.sha256(b"# m").hexdigest()),
    }
    assert (listing.kind, listing.repo, listing.asked) == ("ms", REPO, "master")
    assert len(hub.requests) == 1


def test_a_file_is_read_at_the_commit_of_the_listing_though_the_branch_moves(
    hub: LoopbackHub, web: Web
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA, "old.txt": b"old"})
    last = hub.commit(REPO, {"README.md": b"# m"})
    hub.misbehave(with_commit(last))
    there = source(hub, web)
    listing = there.listing()
    assert listing.revision == last
    hub.commit(REPO, {"m.gguf": DATA[::-1]})
    file = next(each for each in listing.files if each.path == "m.gguf")
    assert there.remote(listing, file).read(0, len(DATA)) == DATA
    assert hub.requests[-2].target.endswith(f"?Revision={last}&FilePath=m.gguf")


def test_a_commit_that_was_asked_for_is_the_revision(hub: LoopbackHub, web: Web) -> None:
    commit = hub.add_repo(REPO, {"m.gguf": DATA})
    hub.commit(REPO, {"m.gguf": DATA[::-1]})
    there = source(hub, web, commit)
    listing = there.listing()
    assert listing.revision == commit
    assert there.remote(listing, listing.files[0]).read(0, 2**20) == DATA


def test_without_a_commit_the_revision_is_the_same_until_a_file_changes(
    hub: LoopbackHub, web: Web
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA, "n.gguf": DATA})
    there = source(hub, web)
    first, again = there.listing().revision, there.listing().revision
    hub.commit(REPO, {"m.gguf": DATA[::-1]})
    listing = there.listing()
    assert first == again != listing.revision
    file = next(each for each in listing.files if each.path == "m.gguf")
    assert there.remote(listing, file).read(0, 4) == DATA[::-1][:4]


def test_a_small_file_that_is_only_sent_whole_can_be_read(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"README.md": b"0123456789"})
    there = source(hub, web)
    listing = there.listing()
    assert there.remote(listing, listing.files[0]).read(3, 4) == b"3456"


def test_a_list_that_was_cut_is_made_whole_folder_by_folder(
    hub: LoopbackHub, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {f"Q{q}/m-{no:05d}-of-00004.gguf": DATA for q in (2, 4, 8) for no in range(1, 5)}
    hub.add_repo(REPO, {**shards, "a/b/c.txt": b"c", "README.md": b"# m"})
    whole = source(hub, web).listing()
    hub.modelscope_listing_cap = 6
    monkeypatch.setattr(modelscope, "_LISTING_CAP", 6)
    walked = source(hub, web).listing()
    assert set(walked.files) == set(whole.files)
    assert walked.revision == whole.revision


def test_a_list_cut_behind_a_folder_is_seen_whatever_the_cap(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"a.gguf": DATA, "q/b.gguf": DATA})
    hub.modelscope_listing_cap = 2  # a.gguf, q
    assert {file.path for file in source(hub, web).listing().files} == {"a.gguf", "q/b.gguf"}


def test_a_folder_that_cannot_be_listed_whole_is_refused(
    hub: LoopbackHub, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo(REPO, {f"{no}.gguf": DATA for no in range(8)})
    hub.modelscope_listing_cap = 6
    monkeypatch.setattr(modelscope, "_LISTING_CAP", 6)
    with pytest.raises(NetworkError, match="too many files"):
        source(hub, web).listing()


def test_folders_without_end_come_to_one(
    hub: LoopbackHub, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelscope, "_MAX_FOLDERS", 20)
    hub.add_repo(REPO, {"m.gguf": DATA})

    def deeper(answer: dict[str, Any]) -> dict[str, Any]:
        depth = len(hub.requests) + 1
        answer["Data"]["Files"] = [{"Path": "/".join("a" * depth), "Type": "tree"}]
        return answer

    hub.misbehave(Edited(deeper))
    with pytest.raises(NetworkError, match="too many files"):
        source(hub, web).listing()


@pytest.mark.parametrize("revision", ["nowhere", "0" * 40])
def test_an_unknown_revision_is_not_found(hub: LoopbackHub, web: Web, revision: str) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})
    with pytest.raises(NotFoundError, match=f"no org/repo at revision '{revision}'"):
        source(hub, web, revision).listing()


def test_an_unknown_revision_told_with_status_200_is_not_found(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})
    hub.misbehave(Edited(lambda answer: {**answer, "Data": {"Files": None}}))
    with pytest.raises(NotFoundError):
        source(hub, web).listing()


def test_a_repository_that_is_not_there_is_not_found(hub: LoopbackHub, web: Web) -> None:
    with pytest.raises(NotFoundError, match="no org/repo") as caught:
        source(hub, web).listing()
    assert caught.value.exit_code == 3
    assert "MODELSCOPE_API_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize("status", [200, 403, 404])
def test_no_access_is_told_from_not_there_whatever_its_status(
    hub: LoopbackHub, web: Web, status: int
) -> None:
    @dataclass(frozen=True)
    class NoAccess(Fault):
        def spoil(self, request: Request, reply: Reply) -> Reply:
            answer = {"Code": 10010200001, "Data": None, "Success": False}
            return json_reply(status, answer)

    hub.misbehave(NoAccess(), on=("modelscope-api",))
    with pytest.raises(AccessError):
        source(hub, web).listing()


def test_a_private_repository_opens_with_the_token(
    hub: LoopbackHub, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA}, private=True)
    with pytest.raises(AccessError):
        source(hub, web).listing()
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    there = source(hub, web)
    listing = there.listing()
    remote = there.remote(listing, listing.files[0])
    assert remote.read(0, 4) == b"GGUF"
    assert {seen.headers["cookie"] for seen in hub.requests[1:-1]} == {f"m_session_id={TOKEN}"}
    assert hub.leaks == []  # the CDN goes without
    seen = repr((vars(there), vars(remote), listing, there.key))
    assert TOKEN not in seen


@pytest.mark.parametrize("token", ["two\nlines", "Ümlaut", "a\0b"])
def test_a_token_that_no_header_can_carry_is_refused_unshown(web: Web, token: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModelScope(web, REPO, token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "endpoint", "key", "is_origin"),
    [
        pytest.param({}, None, f"ms:{REPO}@master", True, id="public"),
        pytest.param(
            {"MODELSCOPE_DOMAIN": "www.modelscope.ai"},
            None,
            f"ms:{REPO}@master",
            True,
            id="international",
        ),
        pytest.param(
            {"MODELSCOPE_DOMAIN": "a.example", "MODELSCOPE_ENDPOINT": "http://b.example:81/"},
            None,
            f"ms:{REPO}@master at b.example:81",
            False,
            id="endpoint-before-domain",
        ),
        pytest.param(
            {"MODELSCOPE_ENDPOINT": "http://b.example"},
            "https://c.example",
            f"ms:{REPO}@master at c.example",
            False,
            id="argument-before-all",
        ),
    ],
)
def test_a_mirror_is_kept_apart_from_the_origin(
    web: Web,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    endpoint: str | None,
    key: str,
    is_origin: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    there = ModelScope(web, REPO, endpoint=endpoint)
    assert there.key == key
    assert (there._host in modelscope.PUBLIC_HOSTS) is is_origin


def test_digests_of_a_mirror_prove_the_transfer_alone(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})
    listing = source(hub, web).listing()
    (claim,) = listing.claims(listing.files[0])
    assert (claim.algorithm, claim.proves) == ("sha256", "transfer")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(NotJson(), NetworkError, id="a-page"),
        pytest.param(CutJson(), NetworkError, id="cut"),
        pytest.param(HugeJson(), NetworkError, id="endless"),
        pytest.param(ServerError(500), NetworkError, id="500"),
        pytest.param(Edited(lambda _: []), NetworkError, id="a-list"),
        pytest.param(Edited(lambda _: {"Code": []}), NotFoundError, id="no-data"),
    ],
)
def test_what_is_no_listing_is_an_error_in_a_sentence(
    hub: LoopbackHub, web: Web, fault: Fault, error: type[LocalllmError]
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})
    hub.misbehave(fault)
    with pytest.raises(error) as caught:
        source(hub, web).listing()
    assert hub.modelscope_endpoint.removeprefix("http://") in caught.value.message


def test_a_server_that_fails_once_is_asked_again(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})
    hub.misbehave(ServerError(503), times=1)
    assert len(source(hub, web).listing().files) == 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(None, id="null"),
        pytest.param({"Path": 3, "Type": "blob", "Size": 1}, id="path-a-number"),
        pytest.param({"Path": "x", "Type": "blob"}, id="no-size"),
        pytest.param({"Path": "x", "Type": "blob", "Size": -1}, id="negative-size"),
        pytest.param({"Path": "x", "Type": "blob", "Size": True}, id="size-a-truth"),
        pytest.param({"Path": "x", "Type": "blob", "Size": "9"}, id="size-a-text"),
        pytest.param({"Path": "x", "Type": "blob", "Size": 1e300}, id="size-a-fraction"),
    ],
)
def test_an_entry_that_tells_too_little_is_left_out(
    hub: LoopbackHub, web: Web, entry: object
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        answer["Data"]["Files"].insert(0, entry)
        return answer

    hub.misbehave(Edited(edit))
    assert [file.path for file in source(hub, web).listing().files] == ["m.gguf"]


@pytest.mark.parametrize("sha256", [None, "", "0" * 63, "g" * 64, 7, "A" * 64])
def test_a_digest_that_is_none_is_not_taken_for_one(
    hub: LoopbackHub, web: Web, sha256: object
) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        answer["Data"]["Files"][0]["Sha256"] = sha256
        return answer

    hub.misbehave(Edited(edit))
    expected = "a" * 64 if sha256 == "A" * 64 else None
    assert source(hub, web).listing().files[0].sha256 == expected


def test_half_a_surrogate_pair_in_a_name_is_no_crash(hub: LoopbackHub, web: Web) -> None:
    hub.add_repo(REPO, {"m.gguf": DATA})

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        answer["Data"]["Files"] += [
            {"Path": "\ud800.gguf", "Type": "blob", "Size": 1},
            {"Path": "\udfff", "Type": "tree"},
        ]
        return answer

    hub.misbehave(Edited(edit))
    there = source(hub, web)
    listing = there.listing()
    remote = there.remote(listing, next(file for file in listing.files if file.size_bytes == 1))
    with pytest.raises(LocalllmError):
        remote.read(0, 1)
