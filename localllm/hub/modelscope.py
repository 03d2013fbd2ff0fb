"""ModelScope and its mirrors: what a repository holds at which commit.

Knows its web API, which its own client (modelscope/hub/api.py) shows and nobody promises: the token
goes along as a cookie and as a bearer, a refusal is a Code in the answer and seldom a status, and
a list of files ends without a word after 3,000 entries.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from localllm.digests import Claim
from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError
from localllm.hub import checksums
from localllm.hub.address import Credentials, Secret, host_of, origin_of
from localllm.hub.remote import RemoteFile
from localllm.hub.source import Listing, SourceKind
from localllm.hub.web import Reply, Web, refusal
from localllm.units import KIB
from localllm.variants import RepoFile

MASTER = "master"
#: The Chinese site and the international one, both run by those who publish there.
PUBLIC_HOSTS = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")

#: Entries after which a list ends, whatever page size is asked for. Measured by others
#: (gpustack's operator, 2026-09); the API has no mark for it.
_LISTING_CAP = 3000
#: Of one repository, where they are listed one by one: a list of folders must end, too.
_MAX_FOLDERS = 1000
_ENVELOPE_BYTES = 64 * KIB
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Not for this user, by the service's own account: private, or consent is missing.
_NO_ACCESS = (10010200001, 10010101004)


def configured_endpoint() -> str:
    """ModelScope's address.

    Precedence, as its own client has it: 1. MODELSCOPE_ENDPOINT, 2. MODELSCOPE_DOMAIN (a host),
    3. the public one.
    """
    named = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN")
    return (named or "modelscope.cn").strip()


class ModelScope:
    """One repository on ModelScope; a Source.

    Args:
        web: the way there.
        repo: "org/repo".
        revision: a branch, tag or commit; None for master.
        endpoint: its address; None for `configured_endpoint()`.
        token: None for MODELSCOPE_API_TOKEN.

    Raises:
        UsageError: the endpoint is no address, or the token none.
    """

    kind: SourceKind = "ms"

    def __init__(
        self,
        web: Web,
        repo: str,
        revision: str | None = None,
        endpoint: str | None = None,
        token: str | None = None,
    ) -> None:
        self._web = web
        self.repo = repo
        self._asked = revision or MASTER
        endpoint = (endpoint or configured_endpoint()).rstrip("/")
        endpoint = endpoint if "://" in endpoint else f"https://{endpoint}"
        self._host = host_of(endpoint)
        self._api = f"{endpoint}/api/v1/models/{quote(repo)}"
        token = token or os.environ.get("MODELSCOPE_API_TOKEN", "")
        self._credentials = _credentials(origin_of(endpoint), token.strip())

    @property
    def key(self) -> str:
        """What it is remembered under; a mirror's word is kept apart from the hub's."""
        mirror = "" if self._host in PUBLIC_HOSTS else f" at {self._host}"
        return f"ms:{self.repo}@{self._asked}{mirror}"

    def listing(self) -> Listing:
        """The files at the commit that the revision stands for now; see Source."""
        whole = self._ask(self._asked, recursive=True)
        commit = self._asked if _COMMIT.fullmatch(self._asked) else whole.commit
        files = whole.files
        if whole.may_be_cut:
            files = self._walk(commit or self._asked)
        return Listing(
            kind=self.kind,
            repo=self.repo,
            asked=self._asked,
            # Where it does not tell the commit, a digest of what it lists changes when that does.
            revision=commit or _digest(files),
            files=files,
            authority=self._host,
            is_origin=self._host in PUBLIC_HOSTS,
        )

    def remote(self, listing: Listing, file: RepoFile) -> RemoteFile:
        """The file at the listing's commit; see Source."""
        is_commit = _COMMIT.fullmatch(listing.revision)
        revision = listing.revision if is_commit else listing.asked
        query = _query({"Revision": revision, "FilePath": file.path})
        return RemoteFile(
            self._web,
            f"{self._api}/repo?{query}",
            file.path,
            credentials=self._credentials,
            size_bytes=file.size_bytes,
            refuse=self._refused,
        )

    def checksums(self, listing: Listing, file: RepoFile) -> Sequence[Claim]:
        """What checksum files of the repository say; see Source."""
        return checksums.read_listed(self, listing, file)

    def _walk(self, revision: str) -> tuple[RepoFile, ...]:
        """All files, asked for folder by folder.

        Raises:
            NetworkError: a folder holds more than a list can, so it cannot be known what.
        """
        files: dict[str, RepoFile] = {}
        folders, n_asked = [""], 0
        while folders:
            folder, n_asked = folders.pop(), n_asked + 1
            page = self._ask(revision, recursive=False, folder=folder)
            if page.n_entries >= _LISTING_CAP or n_asked > _MAX_FOLDERS:
                raise NetworkError(
                    f"{self._host} does not list all of {self.repo}: it has too many files",
                    "download the file with another program and name it",
                )
            files.update((file.path, file) for file in page.files)
            below = f"{folder}/" if folder else ""
            folders += [path for path in page.folders if path.startswith(below)]
        return tuple(files.values())

    def _ask(self, revision: str, *, recursive: bool, folder: str = "") -> _Page:
        wanted = {"Revision": revision, "Recursive": str(recursive)}
        if folder:
            wanted["Root"] = folder
        raw = self._web.document(
            f"{self._api}/repo/files?{_query(wanted)}",
            self._credentials,
            accept="application/json",
            refuse=self._refused,
        )
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or "Code" not in answer:
            raise NetworkError(
                f"{self._host} does not answer as ModelScope does",
                "is MODELSCOPE_ENDPOINT right, or does a login page stand before the network?",
            )
        if (page := _read_page(answer)) is None:
            raise self._explained(answer["Code"])
        return page

    def _refused(self, reply: Reply, what: str) -> LocalllmError:
        """What a refusal means: its Code says more than its status does."""
        if reply.status not in (401, 403, 404):
            return refusal(reply, what)
        if reply.status != 404:
            return self._explained(reply.status)
        raw = b""
        while len(raw) < _ENVELOPE_BYTES and (piece := reply.read(_ENVELOPE_BYTES)):
            raw += piece
        try:
            return self._explained(json.loads(raw)["Code"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return self._explained(None)

    def _explained(self, code: object) -> LocalllmError:
        hint = "check the spelling; a private one wants MODELSCOPE_API_TOKEN"
        if self._credentials is not None:
            hint = "check the spelling, and that the account of MODELSCOPE_API_TOKEN may see it"
        if code in _NO_ACCESS or code in (401, 403):
            return AccessError(f"{self._host} does not give {self.repo} to this user", hint)
        return NotFoundError(f"{self._host} has no {self.repo} at revision {self._asked!r}", hint)


@dataclass(frozen=True)
class _Page:
    """One list of files.

    Attributes:
        files: those that it tells enough of.
        folders: their paths.
        n_entries: of both, and of what is neither.
        commit: that it is of, where it tells.
        may_be_cut: there may be more: it has as many entries as a list can have, or a folder with
            nothing in it, and git keeps no empty folders.
    """

    files: tuple[RepoFile, ...]
    folders: tuple[str, ...]
    n_entries: int
    commit: str | None
    may_be_cut: bool


# GET /api/v1/models/qwen/Qwen2.5-0.5B-Instruct-GGUF/repo/files?Revision=master&Recursive=True, one
# of its entries (folders have the Type "tree"), and the head of what it was committed in:
# {"Code": 200, "Data": {"Files": [
#    {"CommitMessage": "upload weights", "CommittedDate": 1726665606, "InCheck": false,
#     "IsLFS": true, "Mode": "33188", "Name": "qwen2.5-0.5b-instruct-q4_k_m.gguf",
#     "Path": "qwen2.5-0.5b-instruct-q4_k_m.gguf",
#     "Revision": "2e50b77b0eee3083842019e257b74854323d880a",
#     "Sha256": "74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db",
#     "Size": 491400032, "Type": "blob"}],
#   "LatestCommitter": {"Id": "", "ShortId": "2e50b77b"}},
#  "Message": "success", "RequestId": "…", "Success": true}
# A revision that does not exist: {"Code": 200, "Data": {"Files": null}, …}
def _read_page(answer: dict[str, Any]) -> _Page | None:
    """A list of files; None where the answer has none."""
    data = answer.get("Data")
    entries = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(entries, list):
        return None
    files: dict[str, RepoFile] = {}
    folders: list[str] = []
    filled: set[str] = set()
    commits: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(path := entry.get("Path"), str):
            continue
        filled.add(posixpath.dirname(path))
        if entry.get("Type") == "tree":
            folders.append(path)
            continue
        size, sha256 = entry.get("Size"), str(entry.get("Sha256")).lower()
        if type(size) is int and size >= 0:
            found = sha256 if _SHA256.fullmatch(sha256) else None
            files.setdefault(path, RepoFile(path, size, found))
        commits.append(str(entry.get("Revision")))
    # The branch's last commit is told by its first eight digits alone, but every file tells the
    # commit that last changed it, and that one changed some file unless it only removed one.
    last = data.get("LatestCommitter")
    head = last.get("ShortId") if isinstance(last, dict) else None
    commit = None
    if isinstance(head, str) and len(head) >= 7:
        is_it = (each for each in commits if _COMMIT.fullmatch(each) and each.startswith(head))
        commit = next(is_it, None)
    may_be_cut = len(entries) >= _LISTING_CAP or not filled.issuperset(folders)
    return _Page(tuple(files.values()), tuple(folders), len(entries), commit, may_be_cut)


def _digest(files: Sequence[RepoFile]) -> str:
    """A name for this very list of files."""
    told = sorted((file.path, file.size_bytes, file.sha256) for file in files)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _credentials(origin: str, token: str) -> Credentials | None:
    if not token:
        return None
    # Older parts of the API take the cookie, newer ones the header; its own client sends both.
    headers = {
        "Authorization": Secret(f"Bearer {token}"),
        "Cookie": Secret(f"m_session_id={token}"),
    }
    return Credentials(origin, headers)


def _query(wanted: dict[str, str]) -> str:
    # Half a surrogate pair can stand in JSON, and in no URL.
    return urlencode(wanted, errors="replace")
