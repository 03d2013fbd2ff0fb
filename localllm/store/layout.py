"""The hub's cache layout: where the files of a repository lie on this disk, whatever its source.

Knows folders, links and locks as huggingface_hub 2.4.0 lays them (file_download.py), so that
other programs find what is published here and wait where it is being written. Knows nothing of
where files come from, nor of what is in them.

    ROOT/models--org--repo/blobs/<digest>               the bytes
    ROOT/models--org--repo/blobs/<digest>.part          a download that is not finished
    ROOT/models--org--repo/snapshots/<revision>/<path>  a link to ../../blobs/<digest>
    ROOT/models--org--repo/refs/<name>                  holds a revision
    ROOT/.locks/models--org--repo/<digest>.lock
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from localllm import paths
from localllm.errors import IntegrityError, NotFoundError, UsageError
from localllm.naming import check_repo_path
from localllm.store.atomic import (
    folder_name,
    locked,
    sync_folder,
    temporary_name,
    write_atomically,
    writing,
)

Kind: TypeAlias = Literal["hf", "ms", "url"]

_DIGEST = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}", re.ASCII)
# The names that huggingface_hub takes (utils/_validators.py): no "--" and no "..", a letter or
# digit at both ends. "--" stands for the slash, so a name with it could be another's.
_HUB_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
#: What a file system says that has no links: FAT, and Windows without the right to make them.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_RIGHT_TO_LINK = 1314  # ERROR_PRIVILEGE_NOT_HELD


def hub_cache_root() -> Path:
    """Where the Hugging Face hub's own programs keep models on this machine.

    Precedence, as in huggingface_hub/constants.py, which reads it at import: 1. HF_HUB_CACHE;
    2. HUGGINGFACE_HUB_CACHE; 3. HF_HOME/hub; 4. XDG_CACHE_HOME/huggingface/hub;
    5. ~/.cache/huggingface/hub. An empty variable counts as none. LOCALLLM_HOME does not move
    it: what other programs have is to be found.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(caches, "huggingface")
    root = (
        os.environ.get("HF_HUB_CACHE")
        or os.environ.get("HUGGINGFACE_HUB_CACHE")
        or os.path.join(home, "hub")
    )
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(root))))


def cache_root(kind: Kind) -> Path:
    """Where models of a source are kept: the hub's own cache, or a folder of ours."""
    return hub_cache_root() if kind == "hf" else paths.models_dir() / kind


def listed(folder: Path) -> list[Path]:
    """What is in a folder, in order; nothing where it is not there or may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def check_digest(digest: str) -> str:
    """The digest, fit to be a file's name.

    Raises:
        IntegrityError: it is not 40 to 64 of 0-9 a-f (CVE-2024-37032 was Ollama not asking).
    """
    if not _DIGEST.fullmatch(digest):
        raise IntegrityError(f"{digest[:100]!r} is not the digest of a file")
    return digest


def check_revision(revision: str) -> str:
    """The revision, fit to be a folder's name.

    Raises:
        IntegrityError: it is no commit and no digest.
    """
    if not _REVISION.fullmatch(revision):
        raise IntegrityError(f"{revision[:100]!r} is not a commit")
    check_repo_path(revision)
    return revision


@dataclass(frozen=True)
class Repo:
    """A repository's folder in a cache.

    Names are checked before they are joined to a path, and folders that are links are refused
    wherever something is to be written: nothing is ever written outside the root.

    Attributes:
        root: of the cache; absolute.
        folder_name: the folder's own name in it.
    """

    root: Path
    folder_name: str

    @classmethod
    def of(cls, root: Path, kind: Kind, repo: str) -> Repo:
        """The folder of "org/repo", or of a URL's folder; no two of a kind share one.

        Raises:
            UsageError: the hub has no such name.
        """
        if _HUB_NAME.fullmatch(repo) and "--" not in repo and ".." not in repo:
            return cls(root, f"models--{repo.replace('/', '--')}")
        if kind == "hf":
            raise UsageError(f"{repo[:200]!r} is not a repository", "name it as org/repo")
        return cls(root, f"other--{folder_name(repo)}")

    @classmethod
    def all_in(cls, root: Path) -> tuple[Repo, ...]:
        """Every repository in a cache."""
        found = sorted((*root.glob("models--*"), *root.glob("other--*")))
        return tuple(
            cls(root, folder.name)
            for folder in found
            if folder.is_dir() and not folder.is_symlink()
        )

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.root / self.folder_name

    @property
    def lock_folder(self) -> Path:
        """Where the locks of its files are."""
        return self.root / ".locks" / self.folder_name

    def blob_path(self, digest: str) -> Path:
        """Where the bytes with this digest lie, or would."""
        return self.folder / "blobs" / check_digest(digest)

    def part_path(self, digest: str) -> Path:
        """Where they are downloaded to: opened with O_NOFOLLOW, then renamed to the blob's path.

        Raises:
            IntegrityError: it is a link, or reached through one, and would write elsewhere.
        """
        blob = self.blob_path(digest)
        part = self.inside(blob.with_name(f"{blob.name}.part"))
        if part.is_symlink():
            raise IntegrityError(f"the unfinished download {part} is a link", f"rm {part}")
        return part

    def snapshot_path(self, revision: str, path: str) -> Path:
        """Where a file of a revision is found, or would be.

        Raises:
            IntegrityError: the name is a trap (naming.check_repo_path), or no revision.
        """
        check_repo_path(path)
        return self.folder.joinpath("snapshots", check_revision(revision), *path.split("/"))

    @contextlib.contextmanager
    def lock(self, digest: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the lock that huggingface_hub takes to download this very file.

        Whoever adds a file holds it from the first look for the blob until a manifest claims it
        (Store.add): removal leaves alone what is locked. It makes the folder of the blobs.

        Args:
            digest: of the file, as its blob is called.
            on_wait: see atomic.locked.

        Raises:
            DiskError, IntegrityError: see atomic.locked; a link leads out of the cache.
        """
        blobs = self.blob_path(digest).parent
        self.inside(blobs / digest)
        with locked(self.inside(self.lock_folder / f"{digest}.lock"), on_wait):
            with writing(blobs):
                blobs.mkdir(parents=True, exist_ok=True)
            yield

    def publish(self, digest: str, revision: str, path: str) -> Path:
        """Makes the blob visible as a file of a revision, in one step, and to last.

        A relative link; where links are not to be had, the file itself moves there, as the hub's
        library does it.

        Returns:
            Where it is found now.

        Raises:
            NotFoundError: there is no such blob. DiskError: the disk refuses.
            IntegrityError: a name that is a trap, or a folder that is a link.
        """
        blob = self.blob_path(digest)
        entry = self.inside(self.snapshot_path(revision, path))
        if not blob.is_file():
            raise NotFoundError(f"there is no blob {blob}", "pull the model again")
        if _leads_to(entry, blob):
            return entry
        with writing(entry):
            # Made among the blobs: what a crash leaves of it there is no entry of any revision.
            with temporary_name(blob.parent) as link:
                try:
                    os.symlink(os.path.relpath(blob, entry.parent), link)
                except OSError as exc:
                    missing = getattr(exc, "winerror", None) == _NO_RIGHT_TO_LINK
                    if not missing and exc.errno not in _NO_LINKS:
                        raise
                    link = blob
                _move_into_place(link, entry)
            sync_folder(blob.parent)
            for folder in entry.parents[: len(entry.relative_to(self.folder).parts)]:
                sync_folder(folder)
        return entry

    def set_ref(self, name: str, revision: str) -> None:
        """Notes that a branch or tag stands for a revision; after publishing files of it.

        Raises:
            DiskError, IntegrityError: as `publish`.
        """
        check_revision(revision)
        if name == revision:  # a commit is its own name
            return
        check_repo_path(name)
        path = self.inside(self.folder.joinpath("refs", *name.split("/")))
        blobs = self.folder / "blobs"
        self.inside(blobs / "any")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.mkdir(parents=True, exist_ok=True)
            # Without a newline: the hub's library takes all of it for the commit.
            write_atomically(path, revision.encode(), temporary_in=blobs)

    def find(self, revision: str, path: str) -> Path | None:
        """Where a file of a revision is; None where it is not, or its link leads nowhere."""
        entry = self.snapshot_path(revision, path)
        try:
            return entry if self.inside(entry).is_file() else None
        except (OSError, IntegrityError):
            return None

    def entries(self) -> tuple[Path, ...]:
        """The files of all revisions, those included that lead nowhere."""
        return tuple(
            Path(folder, name)
            for folder, _, names in sorted(os.walk(self.folder / "snapshots"))
            for name in sorted(names)
        )

    def references(self, digest: str) -> tuple[Path, ...]:
        """The files of all revisions that are this blob."""
        blob = self.blob_path(digest)
        return tuple(entry for entry in self.entries() if _leads_to(entry, blob))

    def blob_of(self, entry: Path) -> str | None:
        """The digest of the blob that a file of a revision leads to; None where it is a file."""
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(entry))
            if _DIGEST.fullmatch(name) and _leads_to(entry, self.blob_path(name)):
                return name
        return None

    def inside(self, path: Path) -> Path:
        """The path, where no link on the way to it leads elsewhere.

        Raises:
            IntegrityError: one does.
        """
        folder = path.parent
        due = os.path.join(os.path.realpath(self.root), folder.relative_to(self.root))
        if os.path.normcase(os.path.realpath(folder)) != os.path.normcase(due):
            raise IntegrityError(
                f"{folder} is reached through a link, so nothing is written there",
                "put a folder in its place; HF_HUB_CACHE and LOCALLLM_HOME move models elsewhere",
            )
        return path


def _move_into_place(link: Path, entry: Path) -> None:
    """Renames; another process may tidy the folder away until something is in it."""
    for attempt in range(100):
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            os.replace(link, entry)
        except FileNotFoundError:
            if attempt == 99 or not os.path.lexists(link):
                raise
        else:
            return


def _leads_to(entry: Path, blob: Path) -> bool:
    """Whether an entry is a link to the blob, or one file with it."""
    try:
        target = os.readlink(entry)
    except OSError:  # no link
        with contextlib.suppress(OSError):
            return os.path.samefile(entry, blob)
        return False
    return os.path.normpath(entry.parent / target) == os.path.normpath(blob)
