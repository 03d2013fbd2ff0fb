"""The Hugging Face hub's protocol, as huggingface_hub 2.4.0 and curl see it.

    GET  /api/whoami-v2
    GET  /api/models/{org/name}[/revision/{revision}][?blobs=true]
    GET  /api/models/{org/name}/refs
    GET  /api/models/{org/name}/tree/{revision}[/{folder}][?recursive=true&expand=true&cursor=]
    HEAD /{org/name}/resolve/{revision}/{path}, and GET

A file of git-lfs is a redirect to the CDN with X-Repo-Commit, X-Linked-Etag (the SHA-256, quoted)
and X-Linked-Size; any other file comes at once, its ETag the git blob's id. A private repository is
not to be told from one that is not there: 401 to a stranger, 404 to whoever is known.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlencode

from tests.loopback_hub.messages import Reply, Request, file_reply, json_reply, text_reply
from tests.loopback_hub.repositories import Commit, Repository, Stated

if TYPE_CHECKING:
    from tests.loopback_hub.hub import LoopbackHub

_API = re.compile(
    r"/api/models/(?P<id>[^/]+/[^/]+)(?:/(?P<what>revision|tree|refs)(?P<rest>/.*)?)?"
)
_RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")

Visitor = Literal["nobody", "stranger", "known"]


def answer(hub: LoopbackHub, request: Request) -> Reply:
    """The hub's reply to any request."""
    visitor = _visitor(hub, request)
    if visitor == "stranger":
        return _error(401, "", "Invalid credentials in Authorization header")
    if request.path == "/api/whoami-v2":
        return _whoami(visitor)
    if match := _API.fullmatch(request.path):
        repository_id = unquote(match["id"])
        reply = _api(hub, request, visitor, repository_id, match["what"], match["rest"] or "")
        return replace(reply, route="api", file=repository_id)
    if match := _RESOLVE.fullmatch(request.path):
        repository_id, revision, path = map(unquote, match.group("id", "revision", "path"))
        reply = _resolve(hub, request, visitor, repository_id, revision, path)
        return replace(reply, route="resolve", file=path)
    return _error(404, "", "Sorry, we can't find the page you are looking for.")


def _visitor(hub: LoopbackHub, request: Request) -> Visitor:
    token = request.headers.get("Authorization")
    if token is None:
        return "nobody"
    return "known" if token == f"Bearer {hub.token}" else "stranger"


def _error(status: int, code: str, message: str, **headers: str) -> Reply:
    coded = {"X-Error-Code": code} if code else {}
    told = {**coded, "X-Error-Message": message, **headers}
    return json_reply(status, {"error": message}, told)


def _whoami(visitor: Visitor) -> Reply:
    if visitor == "nobody":
        return _error(401, "", "Invalid username or password.")
    token = {"displayName": "tests", "role": "read"}
    return json_reply(
        200,
        {
            "type": "user",
            "id": "0" * 24,
            "name": "tester",
            "fullname": "A Tester",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        },
    )


def _find(
    hub: LoopbackHub, visitor: Visitor, repository_id: str, revision: str
) -> tuple[Repository, Commit] | Reply:
    repository = hub.repositories.get(repository_id)
    if repository is None or (repository.private and visitor != "known"):
        if visitor == "known":
            return _error(404, "RepoNotFound", "Repository not found")
        return _error(401, "RepoNotFound", "Invalid username or password.")
    commit = repository.resolve(revision)
    if commit is None:
        return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return repository, commit


def _api(
    hub: LoopbackHub,
    request: Request,
    visitor: Visitor,
    repository_id: str,
    what: str | None,
    rest: str,
) -> Reply:
    revision, _, folder = rest[1:].partition("/")
    found = _find(hub, visitor, repository_id, unquote(revision) or "main")
    if isinstance(found, Reply):
        return found
    repository, commit = found
    if what == "refs":
        return json_reply(200, _refs(repository))
    if what == "tree":
        return _tree(hub, request, repository, commit, unquote(folder))
    return json_reply(200, _info(hub, request, repository, commit))


# What huggingface.co sends, shortened:
# {"id": "org/name", "sha": "5f0b…", "private": false, "gated": false, "disabled": false,
#  "lastModified": "2026-01-01T00:00:00.000Z", "siblings": [{"rfilename": "a.gguf", "size": 2,
#  "blobId": "9ab1…", "lfs": {"sha256": "3f39…", "size": 2, "pointerSize": 130}}]}
def _info(
    hub: LoopbackHub, request: Request, repository: Repository, commit: Commit
) -> dict[str, Any]:
    return {
        "_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit.id,
        "lastModified": commit.date,
        "createdAt": next(iter(repository.commits.values())).date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["gguf"],
        "siblings": [
            _sibling(stated) if request.flag("blobs") else {"rfilename": stated.path}
            for stated in _listed(hub, repository, commit)
        ],
    }


def _listed(hub: LoopbackHub, repository: Repository, commit: Commit) -> list[Stated]:
    return [
        hub.rules.misstate("api", repository.truth(path, content))
        for path, content in sorted(commit.files.items())
        if not hub.rules.hide("api", path)
    ]


def _sibling(stated: Stated) -> dict[str, Any]:
    lfs = {"sha256": stated.sha256, "size": stated.size_bytes, "pointerSize": len(stated.pointer)}
    told = {"rfilename": stated.path, "blobId": stated.blob_id, "size": stated.size_bytes}
    return {**told, "lfs": lfs} if stated.lfs else told


def _refs(repository: Repository) -> dict[str, Any]:
    return {
        "branches": [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_id}
            for name, commit_id in repository.branches.items()
        ],
        "converts": [],
        "tags": [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit_id}
            for name, commit_id in repository.tags.items()
        ],
    }


# What huggingface.co sends, shortened:
# [{"type": "directory", "oid": "aa53…", "size": 0, "path": "BF16"},
#  {"type": "file", "oid": "9ab1…", "size": 2, "lfs": {"oid": "3f39…", "size": 2,
#   "pointerSize": 130}, "path": "BF16/a.gguf"}]
# and `Link: <https://huggingface.co/api/models/org/name/tree/main?cursor=Zmls…>; rel="next"`.
def _tree(
    hub: LoopbackHub, request: Request, repository: Repository, commit: Commit, folder: str
) -> Reply:
    below = f"{folder}/" if folder else ""
    inside = [
        stated for stated in _listed(hub, repository, commit) if stated.path.startswith(below)
    ]
    if folder and not inside:
        message = f"{folder} does not exist on {commit.id}"
        return _error(404, "EntryNotFound", message)
    recursive = request.flag("recursive")
    entries: dict[str, dict[str, Any]] = {}
    for stated in inside:
        parts = stated.path[len(below) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            path = below + "/".join(parts[:depth])
            oid = hashlib.sha1(path.encode()).hexdigest()
            entries[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
        if recursive or len(parts) == 1:
            entries[stated.path] = _tree_file(stated)
    if request.flag("expand"):
        for path, entry in entries.items():
            changed = repository.commits[commit.changed.get(path, commit.id)]
            last = {"id": changed.id, "title": changed.title, "date": changed.date}
            entry["lastCommit"] = last
    first = int(request.query.get("cursor", "0"))
    page = list(entries.values())[first : first + hub.page_entries]
    headers = {}
    if first + hub.page_entries < len(entries):
        query = urlencode({**request.query, "cursor": first + hub.page_entries})
        headers["Link"] = f'<{request.endpoint}{request.path}?{query}>; rel="next"'
    return json_reply(200, page, headers)


def _tree_file(stated: Stated) -> dict[str, Any]:
    lfs = {"oid": stated.sha256, "size": stated.size_bytes, "pointerSize": len(stated.pointer)}
    told = {
        "type": "file",
        "oid": stated.blob_id,
        "size": stated.size_bytes,
        "path": stated.path,
    }
    return {**told, "lfs": lfs} if stated.lfs else told


# What huggingface.co sends, shortened:
# HTTP/2 302
# location: https://cdn-lfs.hf.co/…?response-content-disposition=…&Expires=…&Signature=…
# x-repo-commit: 5f0b…
# accept-ranges: bytes
# x-linked-size: 491400032
# x-linked-etag: "74a4…"
def _resolve(
    hub: LoopbackHub,
    request: Request,
    visitor: Visitor,
    repository_id: str,
    revision: str,
    path: str,
) -> Reply:
    found = _find(hub, visitor, repository_id, revision)
    if isinstance(found, Reply):
        return found
    repository, commit = found
    if repository.gated and not (visitor == "known" and repository.granted):
        message = f"Access to model {repository.id} is restricted."
        return _error(403 if visitor == "known" else 401, "GatedRepo", message)
    pinned = {"X-Repo-Commit": commit.id}
    content = commit.files.get(path)
    if content is None:
        return _error(404, "EntryNotFound", "Entry not found", **pinned)
    if not repository.is_lfs(path):
        etag = f'"{repository.truth(path, content).blob_id}"'
        return file_reply(request, content, etag=etag, ranges=hub.ranges, headers=pinned)
    stated = hub.rules.misstate("resolve", repository.truth(path, content))
    location = hub.signed_url(repository.id, commit.id, path)
    return text_reply(
        302,
        f"Found. Redirecting to {location}",
        Location=location,
        X_Repo_Commit=commit.id,
        X_Linked_Etag=f'"{stated.sha256}"',
        X_Linked_Size=str(stated.size_bytes),
        **({"Accept_Ranges": "bytes"} if hub.ranges else {}),
    )


def cdn_path(repository_id: str, commit_id: str, path: str) -> str:
    """Where the CDN has a file, percent-encoded."""
    return f"/cdn/{repository_id}/{commit_id}/{quote(path, safe='/')}"


def answer_cdn(hub: LoopbackHub, request: Request) -> Reply:
    """The CDN's reply: a file for whoever has a good signature, and no other question asked."""
    match = re.fullmatch(r"/cdn/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", request.path)
    repository = hub.repositories.get(unquote(match[1])) if match else None
    path = unquote(match[3]) if match else ""
    content = repository.commits[match[2]].files.get(path) if repository and match else None
    refusal = hub.signer.refusal(request.path, request.query)
    if content is None or refusal is not None:
        # As S3 does, to whom a thing that is not there is one that must not be seen.
        why = refusal or "Access Denied"
        message = f"<Error><Code>AccessDenied</Code><Message>{why}</Message></Error>"
        reply = text_reply(403, message, Content_Type="application/xml")
    else:
        disposition = request.query.get("response-content-disposition", "inline")
        headers = {"Content-Disposition": disposition}
        reply = file_reply(request, content, etag=content.etag, ranges=hub.ranges, headers=headers)
    return replace(reply, route="cdn", file=path)
