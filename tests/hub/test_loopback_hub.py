"""The loopback hub itself: the real huggingface_hub believes it, and each fault is what it says."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.loopback_hub import (
    BitFlip,
    Changed,
    CutJson,
    Drip,
    ExpireAfter,
    ExpiredRedirect,
    Fault,
    Generated,
    Gone,
    HugeJson,
    IgnoreRange,
    LoopbackHub,
    NotJson,
    RedirectLoop,
    RedirectTo,
    RefuseRange,
    Reset,
    ServerError,
    Short,
    Somewhere,
    Stall,
    TooManyRequests,
    Truncate,
    Unlisted,
    WrongContentLength,
    WrongContentRange,
    WrongSha256,
    WrongSize,
)
from tests.loopback_hub.messages import parse_range

DATA = random.Random(4).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
REPO = "org/name"


@dataclass(frozen=True)
class Answer:
    """What a client got: `body` as far as it came, `broken` if that was less than promised."""

    status: int
    headers: dict[str, str]
    body: bytes
    broken: type[Exception] | None = None

    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", **headers: str) -> Answer:
    """One request on a connection of its own; redirects are not followed."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_SECONDS)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, url.partition(parts.netloc)[2], headers=named)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        body, broken = _read(response)
        return Answer(response.status, told, body, broken)
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> tuple[bytes, type[Exception] | None]:
    body = b""
    try:
        while part := response.read1(65536):
            body += part
    except OSError as exc:
        return body, type(exc)
    return body, http.client.IncompleteRead if response.length else None


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def commit(hub: LoopbackHub) -> str:
    """Of a repository with two models, one of them in a folder, and a page."""
    files = {"a.gguf": DATA, "BF16/b.gguf": b"GGUF", "README.md": b"hello"}
    return hub.add_repo(REPO, files)


@pytest.fixture
def cdn_url(hub: LoopbackHub, commit: str) -> str:
    return hub.signed_url(REPO, commit, "a.gguf")


@pytest.fixture
def url(hub: LoopbackHub) -> str:
    """Of a file on the plain web server."""
    return hub.add_file("a.gguf", DATA)


def api_of(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


def download(hub: LoopbackHub, folder: Path, file: str = "a.gguf", **options: Any) -> bytes:
    """With the real library."""
    where = {"endpoint": hub.endpoint, "cache_dir": folder, "token": False, **options}
    return Path(hf_hub_download(REPO, file, **where)).read_bytes()


class TestHuggingFace:
    def test_tells_of_a_model_and_its_files(self, hub: LoopbackHub, commit: str) -> None:
        info = api_of(hub).model_info(REPO, files_metadata=True)
        assert (info.id, info.sha, info.private, info.gated) == (REPO, commit, False, False)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        assert set(siblings) == {"a.gguf", "BF16/b.gguf", "README.md"}
        model, page = siblings["a.gguf"], siblings["README.md"]
        assert model.lfs is not None
        assert (model.size, model.lfs.sha256, model.lfs.size) == (len(DATA), SHA256, len(DATA))
        # What `git hash-object` says of the five bytes "hello".
        assert (page.blob_id, page.lfs) == ("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", None)

    def test_says_nothing_of_sizes_unless_asked(self, hub: LoopbackHub, commit: str) -> None:
        siblings = api_of(hub).model_info(REPO).siblings or []
        assert [sibling.size for sibling in siblings] == [None] * 3

    @pytest.mark.parametrize("page_entries", [1000, 1])
    def test_lists_a_tree_page_by_page(
        self, hub: LoopbackHub, commit: str, page_entries: int
    ) -> None:
        hub.page_entries = page_entries
        tree = list(api_of(hub).list_repo_tree(REPO, recursive=True, expand=True))
        assert [entry.path for entry in tree] == ["BF16", "BF16/b.gguf", "README.md", "a.gguf"]
        assert all(entry.last_commit and entry.last_commit.oid == commit for entry in tree)
        assert len(hub.requests) == (4 if page_entries == 1 else 1)

    def test_lists_one_folder(self, hub: LoopbackHub, commit: str) -> None:
        api = api_of(hub)
        assert [entry.path for entry in api.list_repo_tree(REPO)] == ["BF16", "README.md", "a.gguf"]
        assert [entry.path for entry in api.list_repo_tree(REPO, "BF16")] == ["BF16/b.gguf"]
        with pytest.raises(EntryNotFoundError):
            list(api.list_repo_tree(REPO, "F32"))

    def test_the_real_library_downloads_from_the_cdn(
        self, hub: LoopbackHub, commit: str, tmp_path: Path
    ) -> None:
        assert download(hub, tmp_path) == DATA
        head, get = hub.requests
        assert (head.method, head.route, head.status) == ("HEAD", "resolve", 302)
        assert (get.method, get.route, get.status) == ("GET", "cdn", 200)
        assert head.host == urlsplit(hub.endpoint).netloc
        assert get.host == urlsplit(hub.cdn_endpoint).netloc
        assert str(get.host).startswith("localhost:")

    def test_the_real_library_takes_a_snapshot(
        self, hub: LoopbackHub, commit: str, tmp_path: Path
    ) -> None:
        where = snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
        assert Path(where).name == commit
        assert (Path(where) / "BF16" / "b.gguf").read_bytes() == b"GGUF"
        assert (Path(where) / "README.md").read_bytes() == b"hello"

    def test_hf_endpoint_is_all_that_the_real_library_needs(
        self, hub: LoopbackHub, commit: str, tmp_path: Path
    ) -> None:
        program = "import huggingface_hub as h; print(h.hf_hub_download('org/name', 'a.gguf'))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)},
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        assert Path(done.stdout.decode().strip()).read_bytes() == DATA

    def test_the_real_library_resumes_where_a_connection_broke(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        # It writes 10 MiB at a time, and what it has not yet written is lost.
        content = Generated(12 * 2**20)
        hub.add_repo(REPO, {"a.gguf": content})
        broken = hub.misbehave(Truncate(after_bytes=11 * 2**20), file="a.gguf", times=1)
        assert hashlib.sha256(download(hub, tmp_path)).hexdigest() == content.sha256
        assert broken.done == 1
        last = hub.requests[-1]
        assert (last.status, last.range) == (206, f"bytes={10 * 2**20}-")
        assert hub.sent_bytes("a.gguf") == 13 * 2**20

    def test_redirects_a_large_file_and_says_what_it_will_be(
        self, hub: LoopbackHub, commit: str
    ) -> None:
        answer = ask(f"{hub.endpoint}/{REPO}/resolve/main/a.gguf", "HEAD")
        assert answer.status == 302
        assert answer.headers["x-repo-commit"] == commit
        assert answer.headers["x-linked-etag"] == f'"{SHA256}"'
        assert answer.headers["x-linked-size"] == str(len(DATA))
        assert answer.headers["location"].startswith(f"{hub.cdn_endpoint}/cdn/{REPO}/{commit}/")
        assert ask(answer.headers["location"]).body == DATA

    def test_sends_a_small_file_at_once(self, hub: LoopbackHub, commit: str) -> None:
        answer = ask(f"{hub.endpoint}/{REPO}/resolve/main/README.md", Range="bytes=1-3")
        assert (answer.status, answer.body) == (206, b"ell")
        assert answer.headers["etag"] == '"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"'
        assert answer.headers["x-repo-commit"] == commit

    def test_keeps_every_commit(self, hub: LoopbackHub, commit: str, tmp_path: Path) -> None:
        hub.tag(REPO, "v1", commit)
        newer = hub.commit(REPO, {"a.gguf": b"newer", "README.md": None})
        side = hub.commit(REPO, {"c.gguf": b"side"}, branch="refs/pr/1")
        api = api_of(hub)
        assert {api.model_info(REPO).sha, api.model_info(REPO, revision=newer).sha} == {newer}
        assert {api.model_info(REPO, revision=name).sha for name in ("v1", commit)} == {commit}
        assert api.list_repo_files(REPO, revision="refs/pr/1") == [
            "BF16/b.gguf",
            "a.gguf",
            "c.gguf",
        ]
        assert download(hub, tmp_path, revision="v1") == DATA
        assert download(hub, tmp_path) == b"newer"
        refs = api.list_repo_refs(REPO)
        assert {branch.name: branch.target_commit for branch in refs.branches} == {
            "main": newer,
            "refs/pr/1": side,
        }
        assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", commit)]

    def test_does_not_tell_a_private_repository_from_none(self, hub: LoopbackHub) -> None:
        hub.add_repo("org/secret", {"a.gguf": DATA}, private=True)
        told = []
        for name in ("org/secret", "org/none"):
            with pytest.raises(RepositoryNotFoundError) as error:
                api_of(hub).model_info(name)
            told.append((error.value.response.status_code, error.value.server_message))
        assert told == [(401, "Invalid username or password.")] * 2

    def test_the_token_opens_a_private_repository(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add_repo(REPO, {"a.gguf": DATA}, private=True)
        assert HfApi(endpoint=hub.endpoint, token=hub.token).model_info(REPO).private
        assert download(hub, tmp_path, token=hub.token) == DATA
        assert hub.requests[1].authorization == f"Bearer {hub.token}"
        assert hub.leaks == []

    def test_with_the_token_what_is_not_there_is_404(self, hub: LoopbackHub) -> None:
        with pytest.raises(RepositoryNotFoundError) as error:
            HfApi(endpoint=hub.endpoint, token=hub.token).model_info("org/none")
        assert error.value.response.status_code == 404

    def test_a_wrong_token_is_refused(self, hub: LoopbackHub, commit: str) -> None:
        with pytest.raises(HfHubHTTPError) as error:
            HfApi(endpoint=hub.endpoint, token="hf_wrong").model_info(REPO)
        assert error.value.response.status_code == 401
        assert not isinstance(error.value, RepositoryNotFoundError)

    def test_knows_whose_token_it_is(self, hub: LoopbackHub) -> None:
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "tester"

    def test_a_gated_repository_is_listed_but_opens_only_when_granted(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add_repo(REPO, {"a.gguf": DATA}, gated="manual")
        assert api_of(hub).model_info(REPO).gated == "manual"
        for token, status in ((False, 401), (hub.token, 403)):
            with pytest.raises(GatedRepoError) as error:
                download(hub, tmp_path, token=token)
            assert error.value.response.status_code == status
        hub.grant(REPO)
        assert download(hub, tmp_path, token=hub.token) == DATA

    def test_names_what_is_missing(self, hub: LoopbackHub, commit: str, tmp_path: Path) -> None:
        with pytest.raises(EntryNotFoundError):
            download(hub, tmp_path, "none.gguf")
        with pytest.raises(RevisionNotFoundError):
            api_of(hub).model_info(REPO, revision="none")

    @pytest.mark.parametrize(
        "path", ["../a.gguf", "C:\\a.gguf", "a b%2f#?.gguf", 'x\r\nA: "b.gguf']
    )
    def test_serves_hostile_names_without_harm_to_itself(self, hub: LoopbackHub, path: str) -> None:
        commit = hub.add_repo(REPO, {path: DATA})
        assert [s.rfilename for s in api_of(hub).model_info(REPO).siblings or ()] == [path]
        at_hub = ask(f"{hub.endpoint}/{REPO}/resolve/{commit}/{quote(path, safe='')}")
        at_cdn = ask(at_hub.headers["location"])
        assert (at_cdn.status, at_cdn.body) == (200, DATA)
        assert "a" not in at_cdn.headers


class TestCdn:
    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [
            ("bytes=0-", 0, len(DATA)),
            ("bytes=1000-", 1000, len(DATA)),
            ("bytes=1000-1999", 1000, 2000),
            ("bytes=299999-400000", 299_999, len(DATA)),
            ("bytes=-10", len(DATA) - 10, len(DATA)),
            ("bytes=-400000", 0, len(DATA)),
        ],
    )
    def test_serves_ranges(self, cdn_url: str, asked: str, start: int, stop: int) -> None:
        answer = ask(cdn_url, Range=asked)
        assert (answer.status, answer.body) == (206, DATA[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"

    @pytest.mark.parametrize("asked", ["bytes=300000-", "bytes=300000-300001", "bytes=-0"])
    def test_refuses_a_range_behind_the_end(self, cdn_url: str, asked: str) -> None:
        answer = ask(cdn_url, Range=asked)
        assert (answer.status, answer.body) == (416, b"")
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"

    @pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=0-1,5-6", "bytes=-", "lines=1-2", "x"])
    def test_takes_an_odd_range_for_the_whole(self, cdn_url: str, asked: str) -> None:
        assert parse_range(asked, len(DATA)) is None
        assert ask(cdn_url, Range=asked).status == 200

    @pytest.mark.parametrize("validator", ["etag", "last-modified"])
    def test_if_range_decides_between_a_part_and_the_whole(
        self, cdn_url: str, validator: str
    ) -> None:
        current = ask(cdn_url, "HEAD").headers[validator]
        assert ask(cdn_url, Range="bytes=5-", If_Range=current).status == 206
        other = ask(cdn_url, Range="bytes=5-", If_Range='"other"')
        assert (other.status, other.body) == (200, DATA)

    def test_refuses_a_url_that_is_not_signed_or_has_expired(
        self, hub: LoopbackHub, cdn_url: str
    ) -> None:
        assert ask(cdn_url).status == 200
        for bad in (
            cdn_url.partition("?")[0],
            cdn_url.replace("Signature=", "Signature=0"),
            cdn_url.replace("Expires=1", "Expires=2"),
            cdn_url.replace("a.gguf?", "README.md?"),
        ):
            assert ask(bad).status == 403
        hub.expire_urls()
        assert ask(cdn_url).status == 403

    def test_a_signature_has_a_lifetime(self, hub: LoopbackHub, commit: str) -> None:
        hub.signer.lifetime_seconds = -1
        assert ask(hub.signed_url(REPO, commit, "a.gguf")).status == 403

    def test_remembers_every_secret_that_it_is_sent(self, hub: LoopbackHub, cdn_url: str) -> None:
        ask(cdn_url, Authorization="Bearer secret")
        ask(cdn_url, Cookie="m_session_id=secret")
        ask(cdn_url)
        hub.reset()
        assert [seen.authorization for seen in hub.leaks] == ["Bearer secret", None]

    def test_ranges_can_be_unheard_of(self, hub: LoopbackHub, cdn_url: str) -> None:
        hub.ranges = False
        answer = ask(cdn_url, Range="bytes=5-")
        assert (answer.status, answer.body) == (200, DATA)
        assert "accept-ranges" not in answer.headers


class TestPlainServer:
    def test_serves_files_and_the_sums_beside_them(self, hub: LoopbackHub, url: str) -> None:
        sums = hub.add_file("SHA256SUMS", f"{SHA256}  a.gguf\n".encode())
        answer = ask(url, Range="bytes=10-19")
        assert (answer.status, answer.body) == (206, DATA[10:20])
        assert {"etag", "last-modified"} <= set(answer.headers)
        assert ask(sums).body.decode().startswith(SHA256)
        assert ask(f"{url}.md5").status == 404

    def test_redirects(self, hub: LoopbackHub, url: str) -> None:
        answer = ask(hub.add_redirect("old.gguf", url))
        assert (answer.status, answer.headers["location"]) == (302, url)


class TestModelScope:
    @pytest.fixture
    def api(self, hub: LoopbackHub, commit: str) -> str:
        return f"{hub.modelscope_endpoint}/api/v1/models/{REPO}"

    def test_lists_files_in_its_envelope(self, api: str, commit: str) -> None:
        answer = ask(f"{api}/repo/files?Revision=master&Recursive=True").json()
        assert (answer["Code"], answer["Success"]) == (200, True)
        files = {entry["Path"]: entry for entry in answer["Data"]["Files"]}
        assert list(files) == ["BF16", "BF16/b.gguf", "README.md", "a.gguf"]
        model = files["a.gguf"]
        assert (model["Size"], model["Sha256"]) == (len(DATA), SHA256)
        assert (model["Type"], model["IsLFS"], model["Revision"]) == ("blob", True, commit)
        assert files["BF16"]["Type"] == "tree"
        assert files["BF16/b.gguf"]["Name"] == "b.gguf"

    def test_lists_one_folder(self, api: str) -> None:
        def listed(query: str) -> list[str]:
            files = ask(f"{api}/repo/files?{query}").json()["Data"]["Files"]
            return [entry["Path"] for entry in files]

        assert listed("Revision=master") == ["BF16", "README.md", "a.gguf"]
        assert listed("Revision=master&Root=BF16") == ["BF16/b.gguf"]

    def test_cuts_a_long_list_without_a_word(self, hub: LoopbackHub, api: str) -> None:
        hub.modelscope_listing_cap = 2
        answer = ask(f"{api}/repo/files?Revision=master&Recursive=True").json()
        assert [entry["Path"] for entry in answer["Data"]["Files"]] == ["BF16", "BF16/b.gguf"]
        assert (answer["Code"], answer["Message"], answer["Success"]) == (200, "success", True)

    def test_tells_branches_and_tags(self, hub: LoopbackHub, api: str, commit: str) -> None:
        hub.tag(REPO, "v1", commit)
        revisions = ask(f"{api}/revisions").json()["Data"]["RevisionMap"]
        assert [branch["Revision"] for branch in revisions["Branches"]] == ["master"]
        assert [(tag["Revision"], tag["CommitId"]) for tag in revisions["Tags"]] == [("v1", commit)]

    def test_sends_large_files_from_the_cdn(self, hub: LoopbackHub, api: str) -> None:
        answer = ask(f"{api}/repo?Revision=master&FilePath=a.gguf")
        assert answer.status == 302
        assert answer.headers["location"].startswith(hub.cdn_endpoint)
        part = ask(answer.headers["location"], Range="bytes=5-9")
        assert (part.status, part.body) == (206, DATA[5:10])

    def test_sends_large_files_itself_when_told_so(self, hub: LoopbackHub, api: str) -> None:
        hub.modelscope_redirects = False
        answer = ask(f"{api}/repo?Revision=master&FilePath=a.gguf", Range="bytes=5-9")
        assert (answer.status, answer.body) == (206, DATA[5:10])

    def test_sends_small_files_whole_whatever_the_range(self, api: str) -> None:
        answer = ask(f"{api}/repo?Revision=master&FilePath=README.md", Range="bytes=1-2")
        assert (answer.status, answer.body) == (200, b"hello")

    @pytest.mark.parametrize(
        ("query", "status"),
        [("FilePath=none.gguf", 200), ("Revision=none&FilePath=a.gguf", 404)],
    )
    def test_fails_in_its_envelope(self, api: str, query: str, status: int) -> None:
        answer = ask(f"{api}/repo?{query}")
        assert answer.status == status
        assert answer.json()["Success"] is False
        assert answer.json()["Code"] != 200

    @pytest.mark.parametrize("how", ["cookie", "bearer"])
    def test_the_token_opens_a_private_repository(self, hub: LoopbackHub, how: str) -> None:
        hub.add_repo("org/secret", {"a.gguf": DATA}, private=True)
        url = f"{hub.modelscope_endpoint}/api/v1/models/org/secret/repo/files"
        assert ask(url).status == 403
        secret = (
            {"Cookie": f"m_session_id={hub.token}"}
            if how == "cookie"
            else {"Authorization": f"Bearer {hub.token}"}
        )
        assert ask(url, **secret).json()["Success"] is True


class TestContents:
    def test_a_file_on_the_disk_is_what_is_sent(self, hub: LoopbackHub, tmp_path: Path) -> None:
        path = tmp_path / "on-disk.gguf"
        path.write_bytes(DATA)
        url = hub.add_file(path.name, path)
        assert ask(url).body == DATA
        assert ask(url, Range="bytes=65535-65537").body == DATA[65535:65538]
        assert hub.sent_bytes("on-disk.gguf") == len(DATA) + 3

    def test_a_generated_file_is_the_same_however_it_is_read(self) -> None:
        content = Generated(200_001, head=b"GGUF", seed=7)
        whole = b"".join(content.parts())
        assert len(whole) == 200_001
        assert whole.startswith(b"GGUF")
        for start, stop in ((0, 2), (3, 5), (65_530, 65_550), (131_071, 200_001), (9, 9)):
            assert content.read(start, stop) == whole[start:stop]
        assert content.sha256 == hashlib.sha256(whole).hexdigest()
        assert content.sha256 != Generated(200_001, head=b"GGUF", seed=8).sha256
        assert whole[65_536:131_072] != whole[131_072:196_608]

    def test_a_generated_file_needs_no_memory(self, hub: LoopbackHub) -> None:
        url = hub.add_file("huge.gguf", Generated(5 * 2**30))
        answer = ask(url, Range="bytes=5000000000-5000000015")
        assert answer.body == Generated(5 * 2**30).read(5_000_000_000, 5_000_000_016)
        assert answer.headers["content-range"] == "bytes 5000000000-5000000015/5368709120"


class TestCounters:
    def test_counts_bytes_by_file_and_forgets_them(self, hub: LoopbackHub, url: str) -> None:
        hub.add_file("b.gguf", b"12345")
        ask(url)
        ask(url, "HEAD")
        ask(url.replace("a.gguf", "b.gguf"), Range="bytes=1-2")
        assert hub.sent_bytes("a.gguf") == len(DATA)
        assert hub.sent_bytes("b.*") == 2
        assert hub.sent_bytes() == len(DATA) + 2
        assert [(seen.method, seen.range) for seen in hub.requests] == [
            ("GET", None),
            ("HEAD", None),
            ("GET", "bytes=1-2"),
        ]
        hub.reset()
        assert (hub.requests, hub.sent_bytes()) == ([], 0)

    def test_counts_connections_that_are_open_together(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(Stall(after_bytes=10), times=3)
        parts = urlsplit(url)
        connections = [
            http.client.HTTPConnection(str(parts.hostname), parts.port) for _ in range(3)
        ]
        for connection in connections:
            connection.request("GET", parts.path)
        hub.wait_for(lambda: hub.connections == 3)
        for connection in connections:
            connection.close()
        hub.wait_for(lambda: hub.connections == 0)
        assert hub.max_connections == hub.files.max_connections == 3
        assert hub.cdn.max_connections == 0
        hub.reset()
        assert hub.max_connections == 0

    def test_waiting_in_vain_fails(self, hub: LoopbackHub) -> None:
        with pytest.raises(AssertionError, match="in vain"):
            hub.wait_for(lambda: hub.requests, timeout_seconds=0.01)

    def test_a_connection_serves_many_requests(self, hub: LoopbackHub, url: str) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        for _ in range(3):
            connection.request("GET", parts.path)
            assert connection.getresponse().read() == DATA
        connection.close()
        assert hub.max_connections == 1


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            (Truncate(after_bytes=1000), http.client.IncompleteRead),
            (Reset(after_bytes=1000), ConnectionResetError),
        ],
    )
    def test_a_connection_ends_after_so_many_bytes(
        self, hub: LoopbackHub, url: str, fault: Fault, broken: type[Exception]
    ) -> None:
        hub.misbehave(fault, file="*.gguf", times=1)
        first = ask(url)
        assert (first.status, first.body, first.broken) == (200, DATA[:1000], broken)
        assert first.headers["content-length"] == str(len(DATA))
        assert hub.sent_bytes("a.gguf") == 1000
        assert ask(url).body == DATA

    def test_a_reply_that_ends_before_is_not_cut(self, hub: LoopbackHub, url: str) -> None:
        rule = hub.misbehave(Reset(after_bytes=1000), times=1)
        assert ask(url, Range="bytes=0-999").body == DATA[:1000]
        assert ask(url, "HEAD").status == 200
        assert rule.done == 0

    def test_a_seed_decides_where(self, hub: LoopbackHub, url: str) -> None:
        def length(seed: int) -> int:
            hub.behave()
            hub.misbehave(Truncate(Somewhere(seed)))
            return len(ask(url).body)

        assert length(1) == length(1)
        assert len({length(seed) for seed in range(8)}) == 8

    def test_a_short_body_agrees_with_its_length(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(Short(after_bytes=1000))
        answer = ask(url)
        assert (answer.status, answer.body, answer.broken) == (200, DATA[:1000], None)
        assert answer.headers["content-length"] == "1000"

    @pytest.mark.parametrize("kind", ["memory", "disk"])
    def test_one_bit_is_wrong(self, hub: LoopbackHub, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "a.gguf"
        path.write_bytes(DATA)
        url = hub.add_file("a.gguf", path if kind == "disk" else DATA)
        rule = hub.misbehave(BitFlip(offset=200_000), times=1)
        assert ask(url, Range="bytes=0-199999").body == DATA[:200_000]
        assert rule.done == 0
        wrong = ask(url, Range="bytes=100000-").body
        differing = [100_000 + at for at, byte in enumerate(wrong) if byte != DATA[100_000 + at]]
        assert differing == [200_000]
        assert ask(url).body == DATA

    def test_a_bit_can_be_wrong_for_ever(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(BitFlip(Somewhere(seed=3)))
        assert ask(url).body == ask(url).body != DATA

    def test_a_range_is_ignored(self, hub: LoopbackHub, url: str) -> None:
        rule = hub.misbehave(IgnoreRange(), times=1)
        assert ask(url).status == 200
        assert rule.done == 0
        answer = ask(url, Range="bytes=5-9")
        assert (answer.status, answer.body) == (200, DATA)
        assert "content-range" not in answer.headers
        assert ask(url, Range="bytes=5-9").status == 206

    def test_a_right_range_is_refused(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(RefuseRange())
        answer = ask(url, Range="bytes=5-9")
        assert (answer.status, answer.body) == (416, b"")
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"

    def test_a_range_is_said_to_be_another(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(WrongContentRange(by_bytes=7))
        answer = ask(url, Range="bytes=5-9")
        assert answer.headers["content-range"] == f"bytes 12-16/{len(DATA)}"
        assert answer.body == DATA[5:10]

    @pytest.mark.parametrize("by_bytes", [10, -10])
    def test_a_length_is_wrong(self, hub: LoopbackHub, url: str, by_bytes: int) -> None:
        hub.misbehave(WrongContentLength(by_bytes))
        answer = ask(url)
        assert answer.headers["content-length"] == str(len(DATA) + by_bytes)
        assert answer.body == DATA[: len(DATA) + min(by_bytes, 0)]
        assert (answer.broken is None) == (by_bytes < 0)
        assert hub.sent_bytes("a.gguf") == len(DATA)

    def test_a_drip_comes_in_drops(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(Drip(at_once_bytes=100, pause_seconds=0.001))
        assert ask(url, Range="bytes=0-999").body == DATA[:1000]

    def test_a_stall_keeps_the_connection_open(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(Stall(after_bytes=1000))
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        connection.request("GET", parts.path)
        response = connection.getresponse()
        assert response.read(1000) == DATA[:1000]
        connection.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            response.read(1)
        assert hub.connections == 1
        connection.close()

    @pytest.mark.parametrize("said_as", ["seconds", "date", "ratelimit", "nothing"])
    def test_too_many_requests(self, hub: LoopbackHub, url: str, said_as: Any) -> None:
        hub.misbehave(TooManyRequests(wait_seconds=7, said_as=said_as), times=1)
        answer = ask(url)
        assert answer.status == 429
        retry_after = answer.headers.get("retry-after")
        if said_as == "seconds":
            assert retry_after == "7"
        elif said_as == "date":
            assert parsedate_to_datetime(str(retry_after)).tzinfo is not None
        else:
            assert retry_after is None
        limit = '"resolvers";r=0;t=7' if said_as == "ratelimit" else None
        assert answer.headers.get("ratelimit") == limit
        assert ask(url).status == 200

    def test_the_api_can_be_down_while_the_cdn_is_up(self, hub: LoopbackHub, cdn_url: str) -> None:
        hub.misbehave(ServerError(502), on=("api", "resolve"))
        with pytest.raises(HfHubHTTPError) as error:
            api_of(hub).model_info(REPO)
        assert error.value.response.status_code == 502
        assert ask(cdn_url).body == DATA

    def test_the_cdn_can_be_down_while_the_api_is_up(self, hub: LoopbackHub, cdn_url: str) -> None:
        hub.cdn.close()
        with pytest.raises(ConnectionRefusedError):
            ask(cdn_url)
        assert api_of(hub).model_info(REPO).id == REPO
        hub.cdn.open()
        assert ask(cdn_url).body == DATA

    def test_closing_a_listener_ends_its_connections(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(Stall(after_bytes=1000))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, url)
            hub.wait_for(lambda: hub.sent_bytes() == 1000)
            hub.files.close()
            assert answer.result().broken is not None
        assert hub.connections == 0

    @pytest.mark.parametrize("content", [None, DATA[::-1]], ids=["etag alone", "and bytes"])
    def test_a_file_changes_between_two_requests(
        self, hub: LoopbackHub, url: str, content: bytes | None
    ) -> None:
        hub.misbehave(Changed(content), after=1)
        before = ask(url)
        assert before.body == DATA
        later = ask(url, Range="bytes=10-", If_Range=before.headers["etag"])
        assert (later.status, later.body) == (200, content or DATA)
        assert later.headers["etag"] == '"changed"'
        assert later.headers["last-modified"] != before.headers["last-modified"]
        part = ask(url, Range="bytes=10-", If_Range='"changed"')
        assert (part.status, part.body) == (206, (content or DATA)[10:])

    def test_a_redirect_has_expired(self, hub: LoopbackHub, commit: str) -> None:
        hub.misbehave(ExpiredRedirect(), times=1)
        late, good = (ask(f"{hub.endpoint}/{REPO}/resolve/main/a.gguf") for _ in range(2))
        assert (late.status, good.status) == (302, 302)
        assert ask(late.headers["location"]).status == 403
        assert ask(good.headers["location"]).status == 200

    def test_a_signed_url_expires_on_the_way(self, hub: LoopbackHub, cdn_url: str) -> None:
        hub.misbehave(ExpireAfter(after_bytes=1000), times=1)
        assert ask(cdn_url).body == DATA[:1000]
        assert ask(cdn_url, Range="bytes=1000-").status == 403
        again = ask(f"{hub.endpoint}/{REPO}/resolve/main/a.gguf").headers["location"]
        assert ask(again, Range="bytes=1000-").body == DATA[1000:]

    def test_a_redirect_goes_round_in_a_circle(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(RedirectLoop())
        answer = ask(url)
        assert (answer.status, answer.headers["location"]) == (302, url)

    def test_a_redirect_goes_anywhere(self, hub: LoopbackHub, commit: str) -> None:
        hub.misbehave(RedirectTo("file:///etc/passwd"), file="a.gguf")
        answer = ask(f"{hub.endpoint}/{REPO}/resolve/main/a.gguf")
        assert answer.headers["location"] == "file:///etc/passwd"

    def test_a_file_is_listed_and_gone(self, hub: LoopbackHub, commit: str, tmp_path: Path) -> None:
        hub.misbehave(Gone(), file="a.gguf")
        assert "a.gguf" in api_of(hub).list_repo_files(REPO)
        with pytest.raises(EntryNotFoundError):
            download(hub, tmp_path)
        assert download(hub, tmp_path, "BF16/b.gguf") == b"GGUF"

    def test_a_file_is_there_and_not_listed(self, hub: LoopbackHub, cdn_url: str) -> None:
        hub.misbehave(Unlisted(), file="a.*")
        assert "a.gguf" not in api_of(hub).list_repo_files(REPO)
        listed = ask(f"{hub.modelscope_endpoint}/api/v1/models/{REPO}/repo/files").json()
        assert [entry["Path"] for entry in listed["Data"]["Files"]] == ["BF16", "README.md"]
        assert ask(cdn_url).body == DATA

    def test_a_digest_is_wrong_wherever_it_is_stated(self, hub: LoopbackHub, commit: str) -> None:
        hub.misbehave(WrongSha256(), file="a.gguf")
        told = api_of(hub).get_hf_file_metadata(
            url=f"{hub.endpoint}/{REPO}/resolve/main/a.gguf", token=False
        )
        siblings = api_of(hub).model_info(REPO, files_metadata=True).siblings or []
        lfs = next(sibling.lfs for sibling in siblings if sibling.rfilename == "a.gguf")
        assert lfs is not None
        assert (told.etag, lfs.sha256) == ("0" * 64, "0" * 64)

    def test_a_size_is_wrong_in_the_list_alone(self, hub: LoopbackHub, commit: str) -> None:
        hub.misbehave(WrongSize(by_bytes=-1), file="a.gguf", on=("api",))
        sizes = {s.path: getattr(s, "size", 0) for s in api_of(hub).list_repo_tree(REPO)}
        assert sizes["a.gguf"] == len(DATA) - 1
        answer = ask(f"{hub.endpoint}/{REPO}/resolve/main/a.gguf")
        assert answer.headers["x-linked-size"] == str(len(DATA))

    @pytest.mark.parametrize("fault", [NotJson(), CutJson()], ids=["a page", "cut"])
    def test_metadata_is_not_json(self, hub: LoopbackHub, commit: str, fault: Fault) -> None:
        hub.misbehave(fault, file=REPO, times=1)
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
            api_of(hub).model_info(REPO)
        assert api_of(hub).model_info(REPO).sha == commit

    def test_metadata_is_huge(self, hub: LoopbackHub, commit: str) -> None:
        hub.misbehave(HugeJson(size_bytes=3_000_000))
        answer = ask(f"{hub.endpoint}/api/models/{REPO}")
        assert len(answer.body) == 3_000_000
        assert answer.json()["sha"] == commit

    def test_two_faults_at_once(self, hub: LoopbackHub, url: str) -> None:
        hub.misbehave(IgnoreRange())
        hub.misbehave(Truncate(after_bytes=1000))
        answer = ask(url, Range="bytes=5-100000")
        assert (answer.status, answer.body) == (200, DATA[:1000])


def test_a_capped_connection_is_never_faster(hub: LoopbackHub, url: str) -> None:
    hub.cap_bytes_per_second = 1_000_000
    before = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, [url, url]))
    took_seconds = time.monotonic() - before
    assert [answer.body for answer in answers] == [DATA, DATA]
    # Both at once: each has its own cap. 0.02 s are the first portion's, which may come at once.
    assert took_seconds >= len(DATA) / hub.cap_bytes_per_second - 0.02


def test_leaves_no_thread_behind_whatever_is_under_way() -> None:
    before = set(threading.enumerate())
    with LoopbackHub() as hub:
        url = hub.add_file("a.gguf", Generated(2**30))
        hub.misbehave(Stall(after_bytes=10), times=1)
        hub.misbehave(Drip(at_once_bytes=1, pause_seconds=3600), times=1, after=1)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, url, Range="bytes=0-99") for _ in range(3)]
            hub.wait_for(lambda: len(hub.requests) == 3)
            wait_until(lambda: any(answer.done() for answer in asked), "the one that is right")
            hub.close()
            bodies = [answer.result().body for answer in asked]
    dripped, stalled, right = sorted(map(len, bodies))
    assert (dripped, stalled <= 10, right) == (0, True, 100)
    assert not set(threading.enumerate()) - before


def test_runs_as_a_process_that_ends_with_its_input(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(DATA)
    argv = ["--file", str(path), "--generated", "b.gguf=5000000000", "--cap", "100000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback_hub", *argv],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        where = json.loads(process.stdout.readline())
        assert ask(where["urls"]["a.gguf"]).body == DATA
        part = ask(where["urls"]["b.gguf"], Range="bytes=4999999999-")
        assert part.status == 206
        redirect = ask(f"{where['endpoint']}/{where['repo']}/resolve/main/a.gguf")
        assert redirect.headers["x-repo-commit"] == where["revision"]
        process.stdin.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
