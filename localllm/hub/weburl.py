"""Models behind a plain URL: what the server says of them, and where their siblings are.

Knows web servers, and which web pages are really those of a model hub. A user, a password and a
query are used and never shown: names, keys and errors have the rest of the URL alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote, urlsplit, urlunsplit

from localllm.digests import Claim
from localllm.errors import NetworkError, NotFoundError, UsageError
from localllm.hub import checksums, modelscope
from localllm.hub.address import Credentials, Secret, host_of, origin_of, without_secrets
from localllm.hub.part import url_digest
from localllm.hub.remote import RemoteFile, total_bytes
from localllm.hub.source import Listing, SourceKind
from localllm.hub.web import Reply, Web, refusal
from localllm.naming import ModelRef, check_repo_path, parse_ref, read_file_name
from localllm.variants import RepoFile

_SUFFIXES = (".gguf", ".llamafile")


class WebUrl:
    """A model file on a web server, with the other files of its split set; a Source.

    Args:
        web: the way there.
        url: of the file; of any one of a set. It may have a user, a password and a query.

    Raises:
        UsageError: no URL of http or https. IntegrityError: a file name that is none.
    """

    kind: SourceKind = "url"

    def __init__(self, web: Web, url: str) -> None:
        origin = origin_of(url)
        parts = urlsplit(url)
        self._web = web
        self._url = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, "")
        )
        self.repo = without_secrets(self._url).rpartition("/")[0]
        self._credentials = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(pair.encode("utf-8", "surrogatepass"))
            basic = Secret(f"Basic {encoded.decode()}")
            self._credentials = Credentials(origin, {"Authorization": basic})
        #: As the URL has it; None where only the server knows it.
        self._name = _model_name(unquote(parts.path))

    @property
    def key(self) -> str:
        """What it is remembered under: the URL, and where its query names the file, a digest."""
        shown = without_secrets(self._url)
        query = urlsplit(self._url).query
        if self._name is None and query:
            return f"url:{shown}?{url_digest(query)[:16]}"
        return f"url:{shown}"

    def listing(self) -> Listing:
        """The file, and the others of its set, as the server has them now; see Source.

        Raises:
            UsageError: neither the URL nor the server names a file that could be a model.
        """
        asked = self._ask(self._url)
        name = self._name or self._name_by(asked)
        files, told = [], []
        for sibling in _set_of(name) if self._name else (name,):
            try:
                said = asked if sibling == name else self._ask(self._url_of(sibling))
            except NotFoundError:
                continue  # an incomplete set is the variants' to refuse
            files.append(RepoFile(sibling, said.size_bytes))
            told.append((sibling, said.size_bytes, said.etag))
        return Listing(
            kind=self.kind,
            repo=self.repo,
            asked="",
            revision=hashlib.sha256(json.dumps([self.repo, told]).encode()).hexdigest(),
            files=tuple(files),
            authority=host_of(self._url),
            is_origin=False,
        )

    def remote(self, listing: Listing, file: RepoFile) -> RemoteFile:
        """The file as it is now; a server without commits has no other."""
        return RemoteFile(
            self._web,
            self._url_of(file.path),
            file.path,
            credentials=self._credentials,
            size_bytes=file.size_bytes,
        )

    def checksums(self, listing: Listing, file: RepoFile) -> Sequence[Claim]:
        """What checksum files beside it say; see Source."""
        if self._name is None:  # there is no folder to look into
            return ()
        return checksums.side_cars(self._web, self._url_of(file.path), file.path, self._credentials)

    def _url_of(self, name: str) -> str:
        if self._name is None or name == self._name:
            return self._url
        parts = urlsplit(self._url)
        # The stem stays as it is encoded; the rest, -00001-of-00002.gguf, needs no encoding.
        rest = name[len(read_file_name(name).stem) :]
        return urlunsplit(parts._replace(path=parts.path[: -len(rest)] + rest))

    def _ask(self, url: str) -> _Said:
        """What the server says of a file, by asking for its first byte."""
        return self._web.persist(lambda: self._ask_once(url))

    def _ask_once(self, url: str) -> _Said:
        shown = without_secrets(url)
        # Not HEAD: signed URLs are signed for GET alone.
        headers = {"Range": "bytes=0-0"}
        with self._web.request("GET", url, headers=headers, credentials=self._credentials) as reply:
            if reply.status not in (200, 206):
                raise refusal(reply, shown)
            if reply.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise NotFoundError(
                    f"{shown} is a web page, not a model",
                    "open it in a browser and take the address of the download",
                )
            size = total_bytes(reply)
            if size is None:
                raise NetworkError(
                    f"{host_of(reply.url)} does not say how long {shown} is",
                    "download it with another program and name the file",
                )
            etag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
            return _Said(size, etag, _attached_name(reply))

    def _name_by(self, said: _Said) -> str:
        """The file's name by the server's account."""
        name = _model_name(said.name or "")
        if name is None:
            raise UsageError(
                f"{without_secrets(self._url)} does not say which file it is",
                "download it with another program as ….gguf, and name that",
            )
        return name


@dataclass(frozen=True)
class _Said:
    """What a server says of a file; `etag` may be a date, `name` is as untrusted as any."""

    size_bytes: int
    etag: str | None
    name: str | None


def _model_name(path: str) -> str | None:
    """The last part of a path, where that can be a model's name.

    Raises:
        IntegrityError: it could, but for what naming.check_repo_path refuses.
    """
    name = path.rpartition("/")[2]
    if not name.lower().endswith(_SUFFIXES):
        return None
    check_repo_path(name)
    return name


def _attached_name(reply: Reply) -> str | None:
    """The name in Content-Disposition (RFC 6266): attachment; filename="model.gguf"."""
    message = Message()
    message["Content-Disposition"] = reply.headers.get("Content-Disposition", "")
    try:
        return message.get_filename()
    except (TypeError, ValueError, LookupError):  # it was written for honest mail
        return None


def _set_of(name: str) -> tuple[str, ...]:
    """The names of all the files in a file's split set, or its own."""
    read = read_file_name(name)
    if read.unusable or read.n_shards is None:
        return (name,)
    suffix = name[name.rfind(".") :]
    return tuple(
        f"{read.stem}-{no:05d}-of-{read.n_shards:05d}{suffix}" for no in range(1, read.n_shards + 1)
    )


#: First parts of the hub's paths that are no organisations.
_NOT_ORGS = ("api", "blog", "collections", "datasets", "docs", "learn", "papers", "spaces")
_HF_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HF_PATH = re.compile(
    r"/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?:resolve|blob|raw)/(?P<revision>[^/]+)/(?P<file>.+)|/tree/(?P<tree>[^/]+)(?:/.*)?)?/?"
)
_MS_PATH = re.compile(
    r"/models/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?:resolve|file/view)/(?P<revision>[^/]+)/(?P<file>.+)|/(?:files|summary))?/?"
)


def as_hub_ref(url: str, endpoint: str) -> tuple[ModelRef, str | None] | None:
    """The repository, and the file in it, that an address of a model hub's website stands for.

    Args:
        url: as copied from a browser. On the Hugging Face hub `/org/repo`, `/org/repo/tree/main`,
            `/org/repo/blob/main/x.gguf`, `/org/repo/resolve/main/x.gguf?download=true`; on
            ModelScope `/models/org/repo`, `/models/org/repo/resolve/master/x.gguf`,
            `/models/org/repo/file/view/master/x.gguf`.
        endpoint: of the Hugging Face hub that is in use.

    Returns:
        None where it is no such address.

    Raises:
        UsageError: one of the two is no URL of http or https.
    """
    host = host_of(url)
    parts = urlsplit(url)
    if parts.username is not None:  # a server of the person's own, whatever its name
        return None
    if host in (*_HF_HOSTS, host_of(endpoint)):
        hub, match = "hf", _HF_PATH.fullmatch(parts.path)
    elif host in modelscope.PUBLIC_HOSTS:
        hub, match = "ms", _MS_PATH.fullmatch(parts.path)
    else:
        return None
    if match is None or (hub == "hf" and match["repo"].partition("/")[0] in _NOT_ORGS):
        return None
    told = match.groupdict()
    revision = told["revision"] or told.get("tree")
    at = f"@{unquote(revision)}" if revision else ""
    try:
        ref = parse_ref(f"{hub}:{match['repo']}{at}")
    except UsageError:
        return None
    return ref, unquote(told["file"]) if told["file"] else None
