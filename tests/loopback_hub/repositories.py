"""Model repositories as both hubs hold them: commits, branches, tags, files.

Knows git's and git-lfs's identifiers; nothing of the protocols that tell of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Literal

from tests.loopback_hub.contents import Content
from tests.loopback_hub.messages import EPOCH

Gated = Literal["auto", "manual", False]
#: What git-lfs tracks by default, as the hub's own .gitattributes has it.
LFS_GLOBS = ("*.gguf", "*.llamafile", "*.safetensors", "*.bin", "*.zip")


@dataclass(frozen=True)
class Stated:
    """What a hub says of a file, which need not be true.

    Attributes:
        path: in its repository.
        size_bytes: of all of it.
        sha256: of all of it, 64 hexadecimal digits.
        lfs: whether git holds a pointer in its place.
        blob_id: of what git holds.
    """

    path: str
    size_bytes: int
    sha256: str
    lfs: bool
    blob_id: str

    @property
    def pointer(self) -> bytes:
        """What git holds in place of a file of git-lfs."""
        lines = (
            "version https://git-lfs.github.com/spec/v1",
            f"oid sha256:{self.sha256}",
            f"size {self.size_bytes}",
        )
        return "".join(line + "\n" for line in lines).encode()


@dataclass(frozen=True)
class Commit:
    """A state of a repository.

    Attributes:
        id: 40 hexadecimal digits.
        title: what was done.
        when: seconds since 1970.
        files: by their path.
        changed: by a file's path, the id of the commit that last changed it.
    """

    id: str
    title: str
    when: int
    files: Mapping[str, Content]
    changed: Mapping[str, str]

    @property
    def date(self) -> str:
        """ "2026-01-01T00:00:00.000Z"."""
        return datetime.fromtimestamp(self.when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass
class Repository:
    """A model repository.

    Attributes:
        id: "org/name".
        lfs_globs: what is held by git-lfs.
        gated: whether, and how, somebody has to accept terms first.
        private: whether it is there only for whoever has the token.
        granted: whether the token's owner has been let in.
        commits: by their id, the oldest first.
        branches, tags: name -> commit id.
    """

    id: str
    lfs_globs: Sequence[str] = LFS_GLOBS
    gated: Gated = False
    private: bool = False
    granted: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, Content | None], branch: str, title: str) -> str:
        """Changes files (None removes one) on a branch, a new one beginning at main's last commit.

        Returns:
            The id of the new commit.
        """
        parent = self.resolve(branch) or self.resolve("main")
        kept = dict(parent.files) if parent else {}
        changed = dict(parent.changed) if parent else {}
        number = len(self.commits)
        commit_id = hashlib.sha1(f"{self.id} {number} {branch} {title}".encode()).hexdigest()
        for path, content in files.items():
            if content is None:
                del kept[path], changed[path]
            else:
                kept[path], changed[path] = content, commit_id
        when = EPOCH + 60 * number
        self.commits[commit_id] = Commit(commit_id, title, when, kept, changed)
        self.branches[branch] = commit_id
        return commit_id

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag or an id."""
        commit_id = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(commit_id)

    def is_lfs(self, path: str) -> bool:
        return any(fnmatchcase(path, glob) for glob in self.lfs_globs)

    def truth(self, path: str, content: Content) -> Stated:
        """What an honest hub says of a file."""
        stated = Stated(path, content.size_bytes, content.sha256, self.is_lfs(path), "")
        held = stated.pointer if stated.lfs else content.read(0, content.size_bytes)
        blob_id = hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
        return Stated(path, stated.size_bytes, stated.sha256, stated.lfs, blob_id)
