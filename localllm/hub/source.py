"""The one door to where models come from: what a source lists, and how its files are reached.

Types alone; each source is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from localllm.digests import Claim
from localllm.gguf import ByteSource
from localllm.hub.remote import RemoteFile
from localllm.variants import RepoFile

SourceKind = Literal["hf", "ms", "url"]


@dataclass(frozen=True)
class Listing:
    """A model repository at one commit.

    Attributes:
        kind: what sort of source it is.
        repo: "org/repo"; for a URL its folder, without query and user.
        asked: the revision that was asked for: "main".
        revision: the commit that it stands for; for a URL, which has none, a digest of what its
            server says of the files.
        files: all that it holds; names are untrusted (naming.check_repo_path).
        authority: the host whose word sizes and digests are, for a person.
        is_origin: the authority publishes the model; False for a mirror, and for a plain server.
        gated: whoever publishes it asks for consent before a download.
    """

    kind: SourceKind
    repo: str
    asked: str
    revision: str
    files: tuple[RepoFile, ...]
    authority: str
    is_origin: bool
    gated: bool = False

    def claims(self, file: RepoFile) -> tuple[Claim, ...]:
        """What the listing itself says of a file's digests."""
        proves: Literal["origin", "transfer"] = "origin" if self.is_origin else "transfer"
        claims = []
        if file.sha256 is not None:
            claims.append(Claim("sha256", file.sha256, self.authority, proves))
        if file.git_sha1 is not None:
            claims.append(Claim("git-sha1", file.git_sha1, self.authority, proves))
        return tuple(claims)


class Offer(Protocol):
    """Something that lists models and lets their headers be read: a source, or a llamafile here."""

    @property
    def kind(self) -> SourceKind:
        """What sort of source it is."""
        ...

    @property
    def repo(self) -> str:
        """As Listing has it."""
        ...

    @property
    def key(self) -> str:
        """What it is remembered under, its revision as asked for included: "hf:org/repo@main"."""
        ...

    def listing(self) -> Listing:
        """What there is now.

        Raises:
            NotFoundError, AccessError, NetworkError: it is not to be had.
        """
        ...

    def remote(self, listing: Listing, file: RepoFile) -> ByteSource:
        """The way to a file's bytes, at the listing's commit."""
        ...


@runtime_checkable
class Source(Offer, Protocol):
    """Somewhere that models are downloaded from."""

    def remote(self, listing: Listing, file: RepoFile) -> RemoteFile:
        """The way to a file's bytes, at the listing's commit."""
        ...

    def checksums(self, listing: Listing, file: RepoFile) -> Sequence[Claim]:
        """What checksum files beside it say of a file; asks the network where that can help."""
        ...
