"""What is to be pulled, what goes on meanwhile, and what came of it: values.

Knows nothing of disks and networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localllm.digests import Claim
from localllm.hub.pace import Connections
from localllm.hub.source import Listing, Source
from localllm.plan import Model
from localllm.store import Manifest
from localllm.store.checks import Check
from localllm.store.manifest import Role
from localllm.variants import RepoFile, Variant

Doing = Literal["waiting", "verifying", "downloading", "extracting"]


@dataclass(frozen=True)
class Step:
    """What is being done right now.

    Attributes:
        file: which one, as its repository calls it.
        doing: "waiting" for another process, "verifying" what is here already, "downloading"
            (and verifying while it comes), "extracting".
        done_bytes, size_bytes: how far.
        hashed_bytes: of a download, how much is verified.
        n_connections: of a download.
        note: what a person should know: why something is tried again.
    """

    file: str
    doing: Doing
    done_bytes: int = 0
    size_bytes: int = 0
    hashed_bytes: int = 0
    n_connections: int = 0
    note: str | None = None


@dataclass(frozen=True)
class Order:
    """What is to be here in the end.

    Attributes:
        source: where it comes from; None where it is in an archive here.
        listing: of that.
        variant: the model.
        model: what its headers told.
        beside: projectors and drafts to come with it.
        claims: what the person says of the model's file; of one file only.
        reserve_bytes: of the disk, to be left free.
        connections: how many a download may take.
        archive: the llamafile that the model is in, where that is on this disk.
    """

    source: Source | None
    listing: Listing
    variant: Variant
    model: Model
    beside: tuple[tuple[RepoFile, Role], ...] = ()
    claims: tuple[Claim, ...] = ()
    reserve_bytes: int = 0
    connections: Connections = field(default_factory=Connections)
    archive: Path | None = None

    @property
    def files(self) -> tuple[tuple[RepoFile, Role], ...]:
        """All files, with what they are to the model."""
        role: Role = "model"
        return (*((file, role) for file in self.variant.files), *self.beside)

    @property
    def is_llamafile(self) -> bool:
        """The model is inside another file."""
        return self.variant.files[0].path.lower().endswith(".llamafile")


@dataclass(frozen=True)
class Pulled:
    """A model that is here and proven.

    Attributes:
        manifest: of it.
        fetched_bytes: over the network.
        how: for each file, where it came from: "downloaded", "here", or the program that had it.
        checks: what was looked at beside the digests.
        warnings: for a person.
    """

    manifest: Manifest
    fetched_bytes: int
    how: tuple[str, ...]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]


def model_path(path: str) -> str:
    """What a file of a repository is called here: of a llamafile only the model is kept."""
    stem = path[: -len(".llamafile")]
    return f"{stem}.gguf" if path.lower().endswith(".llamafile") else path
