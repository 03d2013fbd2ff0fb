"""ModelScope's protocol, as its own client (modelscope/hub/api.py) speaks it.

    GET /api/v1/models/{org/name}
    GET /api/v1/models/{org/name}/revisions
    GET /api/v1/models/{org/name}/repo/files?Revision=master&Recursive=True&Root=folder
    GET /api/v1/models/{org/name}/repo?Revision=master&FilePath=folder/a.gguf

Every answer is an envelope with Code, Data, Message, RequestId and Success. The token is the cookie
m_session_id, or a bearer token. The main branch is called master. A file of git-lfs is a redirect
to the CDN; a small one comes at once and whole, whatever range is asked for. A file that is not
there is answered with status 200 and an envelope that says so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.loopback_hub.messages import Reply, Request, file_reply, json_reply, text_reply
from tests.loopback_hub.repositories import Commit, Repository

if TYPE_CHECKING:
    from tests.loopback_hub.hub import LoopbackHub

_API = re.compile(r"/api/v1/models/(?P<id>[^/]+/[^/]+)(?:/(?P<what>revisions|repo/files|repo))?")


def answer(hub: LoopbackHub, request: Request) -> Reply:
    """ModelScope's reply to any request."""
    match = _API.fullmatch(request.path)
    if match is None:
        return _error(404, 404, "page not found")
    repository_id = unquote(match["id"])
    if match["what"] == "repo":
        reply = _download(hub, request, repository_id)
        return replace(reply, route="modelscope-file", file=request.query.get("FilePath", ""))
    reply = _api(hub, request, repository_id, match["what"])
    return replace(reply, route="modelscope-api", file=repository_id)


def _envelope(status: int, code: int, message: str, data: dict[str, Any] | None) -> Reply:
    document = {
        "Code": code,
        "Data": data,
        "Message": message,
        "RequestId": "00000000-0000-0000-0000-000000000000",
        "Success": code == 200,
    }
    return json_reply(status, document)


def _data(data: dict[str, Any]) -> Reply:
    return _envelope(200, 200, "success", data)


# The client's own example of a failure: {'Code': 10010101004, 'Message': 'get model info failed,
# err: unauthorized permission', 'RequestId': '', 'Success': False}
def _error(status: int, code: int, message: str) -> Reply:
    return _envelope(status, code, message, None)


def _is_known(hub: LoopbackHub, request: Request) -> bool:
    cookie = SimpleCookie(request.headers.get("Cookie", "")).get("m_session_id")
    bearer = request.headers.get("Authorization")
    return bearer == f"Bearer {hub.token}" or (cookie is not None and cookie.value == hub.token)


def _find(
    hub: LoopbackHub, request: Request, repository_id: str
) -> tuple[Repository, Commit] | Reply:
    repository = hub.repositories.get(repository_id)
    if repository is None:
        return _error(404, 10010205001, "get model info failed, err: record not found")
    if repository.private and not _is_known(hub, request):
        return _error(403, 10010101004, "get model info failed, err: unauthorized permission")
    revision = request.query.get("Revision", "master")
    commit = repository.resolve("main" if revision == "master" else revision)
    if commit is None:
        return _error(404, 10010205002, f"revision {revision} not found")
    return repository, commit


def _api(hub: LoopbackHub, request: Request, repository_id: str, what: str | None) -> Reply:
    found = _find(hub, request, repository_id)
    if isinstance(found, Reply):
        return found
    repository, commit = found
    if what == "revisions":
        return _data({"RevisionMap": _revisions(repository)})
    if what == "repo/files":
        files = _files(hub, request, repository, commit)
        return _data({"Files": files[: hub.modelscope_listing_cap]})
    organisation, _, name = repository.id.partition("/")
    return _data({"Path": organisation, "Name": name, "Revision": "master"})


def _revisions(repository: Repository) -> dict[str, Any]:
    def told(name: str, commit_id: str) -> dict[str, Any]:
        when = repository.commits[commit_id].when
        return {"Revision": name, "CommitId": commit_id, "CreatedAt": when}

    branches = {
        "master" if name == "main" else name: commit_id
        for name, commit_id in repository.branches.items()
    }
    return {
        "Branches": [told(*branch) for branch in branches.items()],
        "Tags": [told(*tag) for tag in repository.tags.items()],
    }


# From https://modelscope.cn/api/v1/models/qwen/Qwen2.5-0.5B-Instruct-GGUF/repo/files, one entry:
# {"CommitMessage": "upload weights", "CommittedDate": 1726665606, "CommitterName": "ai-modelscope",
#  "InCheck": false, "IsLFS": true, "Mode": "33188", "Name": "qwen2.5-0.5b-instruct-q4_k_m.gguf",
#  "Path": "qwen2.5-0.5b-instruct-q4_k_m.gguf",
#  "Revision": "2e50b77b0eee3083842019e257b74854323d880a",
#  "Sha256": "74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db",
#  "Size": 491400032, "Type": "blob"}
def _files(
    hub: LoopbackHub, request: Request, repository: Repository, commit: Commit
) -> list[dict[str, Any]]:
    root = request.query.get("Root", "").strip("/")
    below = f"{root}/" if root else ""
    recursive = request.flag("Recursive")
    entries: dict[str, dict[str, Any]] = {}
    for path, content in sorted(commit.files.items()):
        if not path.startswith(below) or hub.rules.hide("modelscope-api", path):
            continue
        parts = path[len(below) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folder = below + "/".join(parts[:depth])
            entries[folder] = _entry(folder, commit, Type="tree", Mode="16384", Size=0, Sha256="")
        if recursive or len(parts) == 1:
            stated = hub.rules.misstate("modelscope-api", repository.truth(path, content))
            entries[path] = _entry(
                path,
                repository.commits[commit.changed[path]],
                Type="blob",
                Mode="33188",
                Size=stated.size_bytes,
                Sha256=stated.sha256,
                IsLFS=stated.lfs,
            )
    return list(entries.values())


def _entry(path: str, changed: Commit, **told: Any) -> dict[str, Any]:
    return {
        "CommitMessage": changed.title,
        "CommittedDate": changed.when,
        "CommitterName": "tester",
        "InCheck": False,
        "IsLFS": False,
        "Name": path.rpartition("/")[2],
        "Path": path,
        "Revision": changed.id,
        **told,
    }


def _download(hub: LoopbackHub, request: Request, repository_id: str) -> Reply:
    found = _find(hub, request, repository_id)
    if isinstance(found, Reply):
        return found
    repository, commit = found
    path = request.query.get("FilePath", "")
    content = commit.files.get(path)
    if content is None:
        return _error(200, 10010205003, f"file {path} not found")
    lfs = repository.is_lfs(path)
    if lfs and hub.modelscope_redirects:
        location = hub.signed_url(repository.id, commit.id, path)
        return text_reply(302, "Found", Location=location)
    return file_reply(request, content, etag=content.etag, ranges=lfs and hub.ranges)
