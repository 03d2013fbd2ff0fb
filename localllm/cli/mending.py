"""A model file that a server could not load: proven damaged, and fetched again from its source.

Knows the store and the way back to where a file came from. What llama.cpp says of a file is only
the reason to look: the digests in the manifest decide. What the store does not know is not touched.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from localllm import paths
from localllm.cli import kept, references
from localllm.digests import Claim
from localllm.errors import IntegrityError, LocalllmError, NotFoundError
from localllm.gguf import shard_paths
from localllm.hub.localfile import LocalArchive
from localllm.hub.pace import Connections
from localllm.hub.source import Listing, Offer, Source
from localllm.naming import ModelRef, read_file_name
from localllm.plan import Model, Plan
from localllm.profiles import load_policy
from localllm.pull import Order
from localllm.pull.errand import Errand
from localllm.store import Manifest, Store, StoredFile, check_integrity, check_structure
from localllm.units import format_bytes
from localllm.variants import Variant

#: Device, inode, size and time of writing: others once a file is replaced or written to.
_Identity: TypeAlias = tuple[int, int, int, int]

#: Of git's own digest, a sha1.
_COMMIT_DIGITS = 40


def mender(plan: Plan, say: Callable[[str], None]) -> Callable[[LocalllmError], bool]:
    """What makes the plan's model whole again, where its source is known.

    Threads of several replicas may call it: one works, and those who wait meanwhile hear the same.
    A file that was proven or fetched is not hashed or fetched again until somebody has written to
    it, so that one which llama.cpp refuses for another reason costs a look.

    Args:
        plan: whose model it is.
        say: told in sentences what is done and what came of it.

    Returns:
        A function of the error with which the model could not be loaded. True where files were
        damaged and are again those that the manifest vouches for, so that another start is worth
        it. It blocks for as long as hashing and downloading take, and raises no LocalllmError.
    """
    return _Mender(plan.model, say)


class _Mender:
    """See mender."""

    def __init__(self, model: Model, say: Callable[[str], None]) -> None:
        self._model = model
        self._say = say
        self._lock = threading.Lock()
        self._n_mended = 0
        #: What files were when they had their digests.
        self._proven: dict[_Identity, StoredFile] = {}

    def __call__(self, error: LocalllmError) -> bool:
        n_mended = self._n_mended
        with self._lock:
            if self._n_mended != n_mended:
                return True
            try:
                is_mended = self._mend(error)
            except LocalllmError as exc:
                what_now = f"; {exc.hint}" if exc.hint else ""
                self._say(f"{self._model.path} stays damaged: {exc.message}{what_now}")
                return False
            self._n_mended += is_mended
            return is_mended

    def _mend(self, error: LocalllmError) -> bool:
        path = self._model.path
        manifest = _find(path)
        if manifest is None:
            self._say(
                f"{_structure(path)}; it was not pulled by localllm, so it stays as it is:"
                " get it again from where it came"
            )
            return False
        damaged = self._damaged(manifest)
        if not damaged:
            self._say(
                f"every file of {manifest.name} has its recorded digest, and still {error.message};"
                " another quantization, or a newer engine, may load"
            )
            return False
        self._fetch(manifest, damaged)
        if not any(_is_same(path, file.location) for file in manifest.files):
            self._say(
                f"{manifest.name} is whole again, and {path} is another program's file and stays"
                f" as it is: localllm serve {kept.typed_name(manifest)}"
            )
            return False
        self._say(f"{manifest.name} is whole again")
        return True

    def _damaged(self, manifest: Manifest) -> list[StoredFile]:
        """The files that are not as the manifest has them."""
        due = [file for file in manifest.files if self._known(file) is None]
        if due:
            size = format_bytes(sum(file.size_bytes for file in due))
            self._say(
                f"{manifest.name} is compared with its recorded digests: {size}, which may take"
                " a while"
            )
        damaged = []
        for file in due:
            check = check_integrity(file)
            if check.passed:
                self._trust(file)
            else:
                self._say(f"damaged: {check.message}")
                damaged.append(file)
        return damaged

    def _fetch(self, manifest: Manifest, damaged: Sequence[StoredFile]) -> None:
        """Brings the damaged files again, each under its lock until all manifests say so.

        Raises:
            NetworkError, AccessError, NotFoundError: the source does not give them.
            IntegrityError: it has others now. DiskError: they cannot be written.
        """
        store = Store.here()
        broken = {os.path.realpath(file.location) for file in damaged}
        # Other versions may have the same bytes: they would vouch for them.
        sharing = [
            each
            for each in store.contents().manifests
            if any(os.path.realpath(file.location) in broken for file in each.files)
        ]
        for each in sharing:
            _update(store, each, _doubted(each))
        offer = _offer(manifest)
        listing = offer.listing()
        if listing.revision != manifest.revision:
            raise NotFoundError(
                f"{listing.authority} has another version of {manifest.name} now",
                f"localllm pull {kept.typed_name(manifest)}",
            )
        with contextlib.ExitStack() as locks:
            for file in damaged:
                size = format_bytes(file.size_bytes)
                self._say(f"{file.path} is fetched again from {listing.authority}: {size}")
                order = _order(manifest, file, offer, listing, self._model)
                errand = Errand(order, store)
                errand.check_room()
                stored, _ = errand.obtain(locks, order.variant.files[0], file.role)
                if stored.digests["sha256"] != file.digests["sha256"]:
                    raise IntegrityError(f"{listing.authority} has another {file.path} now")
                self._trust(stored)
            for each in sharing:
                _update(store, _doubted(each), self._renewed(each))

    def _trust(self, file: StoredFile) -> None:
        identity = _identity(file)
        if identity is not None:
            self._proven[identity] = replace(file, mtime_ns=identity[-1])

    def _known(self, file: StoredFile) -> StoredFile | None:
        """The file as it was proven; None where it was not, or was written to since."""
        identity = _identity(file)
        return None if identity is None else self._proven.get(identity)

    def _renewed(self, manifest: Manifest) -> Manifest:
        """The version with its files as they are now: proven, if all of them are."""
        files, verified = [], dict(manifest.verified)
        for file in manifest.files:
            known = self._known(file)
            if known is not None:
                adopted = file.adopted if file.in_place else known.adopted
                file = replace(file, mtime_ns=known.mtime_ns, adopted=adopted)
            files.append(file)
        if all(self._known(file) is not None for file in files):
            verified["integrity"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return replace(manifest, files=tuple(files), verified=verified)


# -- in the store -----------------------------------------------------------------------------


def _find(path: str) -> Manifest | None:
    """The version that has the file in this place; else one whose file it leads to."""
    manifests = Store.here().contents().manifests
    for is_it in (lambda there: there == path, lambda there: _is_same(path, there)):
        for manifest in manifests:
            if any(is_it(file.location) for file in manifest.files):
                return manifest
    return None


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _identity(file: StoredFile) -> _Identity | None:
    """None where there is no such file."""
    try:
        status = os.stat(file.location)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _doubted(manifest: Manifest) -> Manifest:
    """As `localllm verify` leaves a version whose bytes are wrong: pull takes none of them."""
    verified = dict(manifest.verified)
    verified.pop("integrity", None)
    return replace(manifest, verified=verified)


def _update(store: Store, before: Manifest, after: Manifest) -> None:
    """Writes a version, unless somebody pulled or removed it meanwhile."""
    if before in store.versions(before.name):
        store.update(after)


def _structure(path: str) -> str:
    """What a loose file says of itself, in a clause: its size against what its header needs."""
    check = check_structure(shard_paths(Path(path)))
    return f"{path} is as long as its header says" if check.passed else check.message


# -- where it came from -----------------------------------------------------------------------


def _archive(manifest: Manifest) -> Path | None:
    """The llamafile on this disk that a version was taken out of."""
    return Path(kept.typed_name(manifest)) if manifest.repo.startswith("file:") else None


def _offer(manifest: Manifest) -> Offer:
    """The way back to where a version came from; nobody is asked yet."""
    archive = _archive(manifest)
    if archive is not None:
        return LocalArchive(archive)
    if manifest.kind == "url":
        ref = ModelRef("url", f"{manifest.repo}/{quote(manifest.files[0].path)}")
    else:
        # Where ModelScope tells no commit, the revision is a digest, which nobody can ask for.
        is_commit = len(manifest.revision) == _COMMIT_DIGITS
        revision = manifest.revision if is_commit else manifest.asked
        ref = ModelRef(manifest.kind, manifest.repo, manifest.repo, revision)
    source, _ = references.source_of(ref, references.make_web())
    return source


def _order(
    manifest: Manifest, file: StoredFile, offer: Offer, listing: Listing, model: Model
) -> Order:
    """That file of the version alone, proven by what proved it before.

    Raises:
        NotFoundError: the source does not list it.
    """
    listed = next((each for each in listing.files if each.path == file.path), None)
    if listed is None:
        raise NotFoundError(f"{listing.authority} has no {file.path} in {manifest.repo} now")
    claims = (*file.proofs, *file.archive_proofs)
    is_archive = file.path.lower().endswith(".llamafile")
    if not claims and not is_archive:  # nobody else has said
        claims = (Claim("sha256", file.digests["sha256"], "the manifest here", "transfer"),)
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    return Order(
        source=offer if isinstance(offer, Source) else None,
        listing=listing,
        variant=Variant(manifest.label, manifest.quant, read_file_name(file.path), (listed,)),
        model=model,
        claims=claims,
        reserve_bytes=policy.disk_reserve_bytes,
        connections=Connections(most=policy.download_connections),
        archive=_archive(manifest),
    )
