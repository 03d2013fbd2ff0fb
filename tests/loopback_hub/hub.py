"""The test hub as a test holds it: what is on it, what it shall do wrong, what happened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

from tests.loopback_hub import huggingface, modelscope
from tests.loopback_hub.contents import Content, content_of
from tests.loopback_hub.faults import BODIES, Fault
from tests.loopback_hub.messages import Reply, Request, Route, file_reply, text_reply
from tests.loopback_hub.record import Record, Seen
from tests.loopback_hub.repositories import LFS_GLOBS, Gated, Repository
from tests.loopback_hub.rules import Rule, Rules
from tests.loopback_hub.signed import Signer
from tests.loopback_hub.sockets import Listener, Manner

_Files = Mapping[str, bytes | Path | Content]


class LoopbackHub:
    """A Hugging Face hub, its CDN, a ModelScope and a plain web server, on loopback.

    The CDN goes by another host name ("localhost") than the rest (127.0.0.1). Both hubs have the
    same repositories; what is "main" on one is "master" on the other.

    Attributes:
        token: the one token that both hubs know.
        page_entries: of one page of a tree; the real hub has 1,000.
        cap_bytes_per_second: of each connection, for files; None for as fast as it goes.
        ranges: False for servers that have never heard of ranges.
        modelscope_listing_cap: entries after which its list ends without a word; None for never.
        modelscope_redirects: whether ModelScope sends files of git-lfs from the CDN.
        repositories: by their id.
        rules: what shall go wrong.
        signer: makes the CDN's URLs.
        api, cdn, files, modelscope: the listeners, each of which can be closed and opened again.
    """

    def __init__(self) -> None:
        self.token = "hf_loopbackloopbackloopbackloopback"
        self.page_entries = 1000
        self.cap_bytes_per_second: int | None = None
        self.ranges = True
        self.modelscope_listing_cap: int | None = None
        self.modelscope_redirects = True
        self.repositories: dict[str, Repository] = {}
        self.rules = Rules()
        self.signer = Signer()
        self._record = Record()
        self._plain: dict[str, Content | str] = {}
        self.api = self._listener("127.0.0.1", huggingface.answer)
        self.cdn = self._listener("localhost", huggingface.answer_cdn)
        self.files = self._listener("127.0.0.1", LoopbackHub._answer_plain)
        self.modelscope = self._listener("127.0.0.1", modelscope.answer)

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and thread."""
        for listener in (self.api, self.cdn, self.files, self.modelscope):
            if not listener.stopping.is_set():
                listener.close()

    # Where it is.

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return self.api.endpoint

    @property
    def cdn_endpoint(self) -> str:
        return self.cdn.endpoint

    @property
    def files_endpoint(self) -> str:
        return self.files.endpoint

    @property
    def modelscope_endpoint(self) -> str:
        return self.modelscope.endpoint

    # What is on it.

    def add_repo(
        self,
        repository_id: str,
        files: _Files,
        *,
        lfs: Sequence[str] = LFS_GLOBS,
        gated: Gated = False,
        private: bool = False,
    ) -> str:
        """A new repository, "org/name", with one commit on main.

        Args:
            repository_id: "org/name".
            files: by their path, which may be as hostile as a test likes.
            lfs: globs of the files that are held by git-lfs, so come from the CDN.
            gated: whether terms have to be accepted first; `grant` accepts them.
            private: whether it is there only for whoever has the token.

        Returns:
            The id of the commit.
        """
        self.repositories[repository_id] = Repository(repository_id, lfs, gated, private)
        return self.commit(repository_id, files)

    def commit(
        self,
        repository_id: str,
        files: Mapping[str, bytes | Path | Content | None],
        *,
        branch: str = "main",
        title: str = "upload",
    ) -> str:
        """Changes files, None removing one, on a branch that may be new; the commit's id."""
        contents = {
            path: None if value is None else content_of(value) for path, value in files.items()
        }
        return self.repositories[repository_id].commit(contents, branch, title)

    def tag(self, repository_id: str, name: str, commit_id: str) -> None:
        """Gives a commit a name for good."""
        self.repositories[repository_id].tags[name] = commit_id

    def grant(self, repository_id: str) -> None:
        """Lets the token's owner into a gated repository."""
        self.repositories[repository_id].granted = True

    def add_file(self, name: str, value: bytes | Path | Content) -> str:
        """A file on the plain web server; its URL."""
        return self._add_plain(name, content_of(value))

    def add_redirect(self, name: str, location: str) -> str:
        """A redirect on the plain web server to any URL or path; its own URL."""
        return self._add_plain(name, location)

    def _add_plain(self, name: str, what: Content | str) -> str:
        self._plain[name] = what
        return f"{self.files_endpoint}/files/{quote(name)}"

    def signed_url(self, repository_id: str, commit_id: str, path: str) -> str:
        """A URL of the CDN, as the hubs hand it out."""
        where = huggingface.cdn_path(repository_id, commit_id, path)
        query = self.signer.query(where, path.rpartition("/")[2])
        return f"{self.cdn_endpoint}{where}?{query}"

    # What it shall do wrong.

    def misbehave(
        self,
        fault: Fault,
        *,
        file: str = "*",
        times: int | None = None,
        after: int = 0,
        on: Collection[Route] | None = None,
    ) -> Rule:
        """Asks for a fault.

        Args:
            fault: see faults.py; a reply that cannot have it is right and is not counted.
            file: a glob; of the APIs it means the repository's id, elsewhere the file's path.
            times: how often; None for ever.
            after: how many fitting replies are right before that.
            on: which parts of the hub; None for those that the fault is made for.

        Returns:
            The rule; its `done` tells how often the fault was done.
        """
        rule = Rule(fault, file, fault.routes if on is None else on, times, after)
        self.rules.add(rule)
        return rule

    def behave(self) -> None:
        """From now on all is right again."""
        self.rules.clear()

    def expire_urls(self) -> None:
        """Every signed URL that was handed out so far is worth nothing."""
        self.signer.expire_all()

    # What happened.

    @property
    def requests(self) -> list[Seen]:
        """All that were answered, in order."""
        with self._record.changed:
            return list(self._record.requests)

    @property
    def leaks(self) -> list[Seen]:
        """Requests that brought a secret to the CDN or the plain web server; `reset` keeps them."""
        with self._record.changed:
            return list(self._record.leaks)

    @property
    def connections(self) -> int:
        """That are open."""
        return self._record.connections[""]

    @property
    def max_connections(self) -> int:
        """The most that were open at the same time, of all listeners together; each has its own."""
        return self._record.peaks[""]

    def sent_bytes(self, file: str = "*") -> int:
        """Bytes of bodies given to the kernel, for files (of the APIs: repositories) of a glob.

        What is being given at this very moment, at most a MiB a connection, is counted already.
        """
        return self._record.sent_bytes(file)

    def reset(self) -> None:
        """Sets the counters back to nothing."""
        self._record.reset()

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float = 120.0) -> None:
        """Waits until something about the hub is so; looks whenever something happens at it."""
        self._record.wait_for(condition, timeout_seconds)

    # How it works.

    def _listener(self, host: str, answer: Callable[[LoopbackHub, Request], Reply]) -> Listener:
        manner = Manner(
            lambda request: self.rules.spoil(request, answer(self, request)),
            self._sent,
            lambda reply: self.cap_bytes_per_second if reply.route in BODIES else None,
        )
        return Listener(host, manner, self._record)

    def _sent(self, reply: Reply) -> None:
        if reply.expires_urls:
            self.expire_urls()

    def _answer_plain(self, request: Request) -> Reply:
        name = unquote(request.path.removeprefix("/files/"))
        what = self._plain.get(name)
        if what is None:
            reply = text_reply(404, "not found")
        elif isinstance(what, str):
            reply = text_reply(302, "Found", Location=what)
        else:
            reply = file_reply(request, what, etag=what.etag, ranges=self.ranges)
        return replace(reply, route="files", file=name)
