"""What goes from the disk when a model goes, and what stays because somebody else needs it.

Knows who refers to a file: manifests, other entries of its repository, other programs, whoever
holds its lock. Knows nothing of names and their versions (library.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import IntegrityError, LocalllmError
from localllm.store.layout import Repo, listed
from localllm.store.manifest import Manifest, StoredFile

#: What nobody has touched for so long is not being worked on: a download that was interrupted on
#: Friday is still there on Monday, and after a holiday of a few days.
STALE_SECONDS = 7 * 24 * 3600.0

_PART = re.compile(r"(?P<digest>[0-9a-f]{40,64})\.part.*", re.ASCII)
_BLOB = re.compile(r"(?P<digest>[0-9a-f]{40,64})", re.ASCII)
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp", re.ASCII)


class _BusyError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Kept:
    """A file that stays.

    Attributes:
        path: of it.
        why: a clause for a person.
    """

    path: Path
    why: str


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be.

    Attributes:
        goes: files and links.
        freed_bytes: what the disk gains by it: nothing for a link, or for a file that another
            program has under a name of its own.
        stays: what might have been expected to go.
    """

    goes: tuple[Path, ...] = ()
    freed_bytes: int = 0
    stays: tuple[Kept, ...] = ()

    def __add__(self, other: Removal) -> Removal:
        return Removal(
            self.goes + other.goes,
            self.freed_bytes + other.freed_bytes,
            self.stays + other.stays,
        )


def take_away(going: Sequence[Manifest], staying: Iterable[Manifest], *, dry_run: bool) -> Removal:
    """Removes the files of versions, as far as nothing else needs them.

    1. A file that another version claims stays; 2. so does one that stood in its place before us;
    3. a blob stays while any entry of any revision leads to it; 4. so does what somebody holds
    the lock of, who is about to use it.

    Args:
        going: whose files they are; their manifests are gone already.
        staying: all others.
        dry_run: only say what would go.
    """
    claims = _claims(staying)
    entries: dict[tuple[Repo, str], list[Path]] = {}
    kept = []
    for manifest in going:
        for file in manifest.files:
            entry = Path(file.location)
            repo = _repo_of(manifest, file)
            if claimant := claims.get(_key(entry)):
                kept.append(Kept(entry, f"{claimant} needs it"))
            elif file.in_place:
                kept.append(Kept(entry, f"{file.adopted} put it there"))
            elif repo is None:
                kept.append(Kept(entry, "it does not lie where a model's file belongs"))
            elif os.path.lexists(entry):
                if file.adopted is not None:
                    kept.append(Kept(entry.resolve(), f"it is {file.adopted}'s; our link goes"))
                digest = repo.blob_of(entry) or file.digests["sha256"]
                entries.setdefault((repo, digest), []).append(entry)
    removal = Removal(stays=tuple(kept))
    for (repo, digest), found in entries.items():
        removal += _take_blob(repo, digest, found, dry_run)
    if not dry_run:
        for repo in {repo for repo, _ in entries}:
            _tidy(repo)
    return removal


def take_leftovers(
    hub_root: Path,
    own_roots: Iterable[Path],
    claiming: Iterable[Manifest] | None,
    now: float,
    *,
    dry_run: bool,
) -> Removal:
    """Removes what was begun and given up: unfinished downloads, files that no manifest claims.

    Nothing that somebody touched within STALE_SECONDS, or holds the lock of. In the hub's own
    cache only what is ours by its name.

    Args:
        hub_root: the hub's own cache.
        own_roots: caches that nobody else puts anything into.
        claiming: all manifests; None where some cannot be read, so that who knows what they claim.
        now: seconds since 1970.
        dry_run: only say what would go.
    """
    removal, before = Removal(), now - STALE_SECONDS
    claims = None if claiming is None else _claims(claiming)
    own = [repo for root in own_roots for repo in Repo.all_in(root)]
    for repo in (*Repo.all_in(hub_root), *own):
        if claims is not None and repo in own:
            unclaimed = [entry for entry in repo.entries() if _key(entry) not in claims]
            for digest, entries in _unclaimed(repo, unclaimed).items():
                if _is_stale([*entries, repo.blob_path(digest)], before):
                    removal += _take_blob(repo, digest, entries, dry_run)
        for digest, parts in _unfinished(repo).items():
            if _is_stale(parts, before):
                removal += _take(repo, digest, parts, dry_run)
        if not dry_run and repo in own:
            _tidy(repo)
    return removal


def _claims(manifests: Iterable[Manifest]) -> Mapping[tuple[str, str], str]:
    return {
        _key(Path(file.location)): manifest.name
        for manifest in manifests
        for file in manifest.files
    }


def _key(entry: Path) -> tuple[str, str]:
    """One for every way to spell a path, without following the entry itself."""
    return os.path.realpath(entry.parent), entry.name


def _repo_of(manifest: Manifest, file: StoredFile) -> Repo | None:
    """The repository's folder that a file lies in, in whatever cache; None for any other place.

    A cache is where the environment said when the file was taken in, which may have changed.
    """
    for snapshot in Path(file.location).parents:
        if snapshot.name == manifest.revision and len(snapshot.parents) > 2:
            repo = Repo.of(snapshot.parents[2], manifest.kind, manifest.repo)
            if repo.folder / "snapshots" / manifest.revision == snapshot:
                return repo
    return None


def _unfinished(repo: Repo) -> dict[str, list[Path]]:
    """What is left of downloads, by digest; of links and small files, under "" ."""
    found: dict[str, list[Path]] = {}
    for path in listed(repo.folder / "blobs"):
        if match := _PART.fullmatch(path.name):
            found.setdefault(match["digest"], []).append(path)
        elif _TEMPORARY.fullmatch(path.name):
            found.setdefault("", []).append(path)
    return found


def _unclaimed(repo: Repo, entries: Iterable[Path]) -> dict[str, list[Path]]:
    """Entries by the blob that they lead to, and blobs without any."""
    found: dict[str, list[Path]] = {}
    for path in listed(repo.folder / "blobs"):
        if _BLOB.fullmatch(path.name) and not repo.references(path.name):
            found[path.name] = []
    for entry in entries:
        if digest := repo.blob_of(entry):
            found.setdefault(digest, []).append(entry)
    return found


def _is_stale(paths: Iterable[Path], before: float) -> bool:
    """Whether none of them was touched since; a link of today to an old file was."""
    touched = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            touched.append(max(status.st_mtime, status.st_ctime))
    return bool(touched) and max(touched) < before


def _take_blob(repo: Repo, digest: str, entries: Sequence[Path], dry_run: bool) -> Removal:
    """Removes entries, and the blob behind them when no other entry leads to it."""
    blob = repo.blob_path(digest)
    return _take(repo, digest, entries, dry_run, blob if os.path.lexists(blob) else None)


def _take(
    repo: Repo, digest: str, paths: Sequence[Path], dry_run: bool, blob: Path | None = None
) -> Removal:
    """Removes files that nobody holds the lock of.

    Args:
        repo: where they are.
        digest: whose lock it is; "" for none.
        paths: the files.
        dry_run: only say.
        blob: goes as well, when nothing but paths leads to it.
    """
    lock = contextlib.nullcontext() if dry_run or not digest else repo.lock(digest, _refuse)
    try:
        with lock:
            doomed, kept = [*paths], []
            if blob is not None:
                others = [entry for entry in repo.references(digest) if entry not in paths]
                if others:
                    kept.append(Kept(blob, f"{others[0]} is the same file"))
                else:
                    doomed.append(blob)
            freed_bytes = _freed_bytes(doomed)
            for path in doomed:
                repo.inside(path)
                if not dry_run:
                    path.unlink(missing_ok=True)
    except _BusyError:
        return Removal(stays=tuple(Kept(path, "another process is using it") for path in paths))
    except (LocalllmError, OSError) as exc:
        return Removal(stays=tuple(Kept(path, f"it cannot be removed: {exc}") for path in paths))
    return Removal(tuple(doomed), freed_bytes, tuple(kept))


def _refuse() -> None:
    raise _BusyError


def _freed_bytes(paths: Iterable[Path]) -> int:
    """What the disk gains: a file counts when all its names go, a link not at all."""
    names: dict[tuple[int, int], list[os.stat_result]] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                names.setdefault((status.st_dev, status.st_ino), []).append(status)
    return sum(found[0].st_size for found in names.values() if found[0].st_nlink <= len(found))


def _tidy(repo: Repo) -> None:
    """Removes empty folders, and references to revisions that are gone.

    Not while anything is being downloaded there: the hub's library makes the folder of an entry
    first, and the entry when the download is done.
    """
    snapshots, refs = repo.folder / "snapshots", repo.folder / "refs"
    try:
        for folder in (snapshots, refs):
            repo.inside(folder / "any")
    except IntegrityError:
        return
    if not _is_quiet(repo):
        return
    _remove_empty(snapshots)
    for inner, _, names in os.walk(refs):
        for name in names:
            path = Path(inner, name)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if not (snapshots / path.read_text("ascii")).exists():
                    path.unlink()
    _remove_empty(refs)
    # The hub's library wants a `snapshots` in every folder that stands: it goes with all the rest.
    if not listed(snapshots) and all(_is_empty(path) for path in listed(repo.folder)):
        for path in (*listed(repo.folder), repo.folder):
            with contextlib.suppress(OSError):
                path.rmdir()


def _is_quiet(repo: Repo) -> bool:
    """Whether nobody seems to be downloading into this repository."""
    if any(path.name.endswith((".part", ".incomplete")) for path in listed(repo.folder / "blobs")):
        return False
    for path in listed(repo.lock_folder):
        if _BLOB.fullmatch(path.stem):
            try:
                with repo.lock(path.stem, _refuse):
                    pass
            except (_BusyError, LocalllmError):
                return False
    return True


def _remove_empty(folder: Path) -> None:
    """Removes the empty folders below a folder."""
    for inner, _, _ in os.walk(folder, topdown=False):
        if Path(inner) != folder:
            with contextlib.suppress(OSError):
                os.rmdir(inner)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not listed(path)
