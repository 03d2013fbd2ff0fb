"""Pulling a model: its files found here, taken over from another program, or downloaded; proven.

Puts the hub's room and the store's together. Knows nothing of terminals: what goes on is told
through a function that it is handed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from localllm.digests import Algorithm, Claim
from localllm.errors import DiskError, IntegrityError, UsageError
from localllm.hub import llamafile, localfile
from localllm.hub.download import Connections, Progress, download
from localllm.hub.part import (
    forget,
    partial_bytes,
    remove,
    room_missing,
    settle,
    side_car,
    url_digest,
)
from localllm.hub.source import Listing, Source
from localllm.plan import Model
from localllm.store import Facts, Manifest, Repo, Store, StoredFile
from localllm.store.adoption import HUB_PROGRAM, adopt, find_elsewhere, hash_file
from localllm.store.checks import (
    Check,
    chat_template_sha256,
    check_quantization,
    check_structure,
    header_sha256,
)
from localllm.store.manifest import CheckName, Role
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


def pull(order: Order, store: Store, on_step: Callable[[Step], None] = lambda _: None) -> Pulled:
    """Brings every file of the order here.

    For each: 1. what a manifest vouches for; 2. what lies in the cache, after hashing it; 3. what
    another program on this machine has, likewise, by a link; 4. the download. Locks are held until
    the manifest stands, so that others who want the same wait for it.

    Raises:
        DiskError: no room. IntegrityError: not what it claims to be. NetworkError, AccessError,
        NotFoundError: not to be had. What was downloaded so far stays.
    """
    if order.variant.unusable:
        raise IntegrityError(f"{order.variant.label} cannot be run: {order.variant.unusable}")
    if order.claims and len(order.variant.files) > 1:
        raise UsageError(
            f"{order.variant.label} is {len(order.variant.files)} files, and a digest is of one",
            "leave out --sha256 and --md5: the parts are checked as the hub lists them",
        )
    _check_claims(order)
    errand = _Errand(order, store, on_step)
    with contextlib.ExitStack() as locks:
        errand.check_room()
        stored, how = [], []
        for file, role in order.files:
            found, origin = errand.obtain(locks, file, role)
            stored.append(found)
            how.append(origin)
        return errand.finish(stored, how)


def _check_claims(order: Order) -> None:
    """That the person and the listing mean the same file, before any of it is downloaded.

    Raises:
        IntegrityError: they do not.
    """
    file, listing = order.variant.files[0], order.listing
    for claim in order.claims:
        if claim.algorithm == "sha256" and file.sha256 not in (None, claim.hex):
            raise IntegrityError(
                f"{claim.by} wants {file.path} to have the sha256 {claim.hex}, and"
                f" {listing.authority} lists it with {file.sha256}",
                "nothing was downloaded; is it the right file and revision?",
            )


class _Errand:
    """One order on its way."""

    def __init__(self, order: Order, store: Store, on_step: Callable[[Step], None]) -> None:
        self._order = order
        self._listing = order.listing
        self._store = store
        self._on_step = on_step
        self._repo: Repo = store.repo(order.listing.kind, order.listing.repo)
        self._fetched_bytes = 0

    def check_room(self) -> None:
        """That the disk has room for what is not here yet.

        Raises:
            DiskError: it has not.
        """
        due = 0
        for file, _ in self._order.files:
            if not self._is_missing(file):
                continue
            if self._order.archive is None:
                due += file.size_bytes - partial_bytes(self._repo.part_path(self._key(file)))
            if self._order.is_llamafile:
                due += self._order.model.size_bytes  # beside the archive, until that goes
        folder = next(
            each for each in (self._repo.folder, *self._repo.folder.parents) if each.exists()
        )
        missing = room_missing(folder, due, self._order.reserve_bytes) if due else None
        if missing is not None:
            raise DiskError(missing, "free some space, or choose a smaller one: --quant")

    def obtain(
        self, locks: contextlib.ExitStack, file: RepoFile, role: Role
    ) -> tuple[StoredFile, str]:
        """One file, wherever it is, and where that was."""
        key = self._key(file)
        waiting = Step(file.path, "waiting", size_bytes=file.size_bytes)
        locks.enter_context(self._repo.lock(key, lambda: self._on_step(waiting)))
        vouched = self._vouched(file)
        if vouched is not None:
            return replace(vouched, role=role), "here"
        claims = self._claims(file)
        if file.path.lower().endswith(".llamafile"):
            return self._extracted(locks, file, key, claims), "downloaded"
        blob = self._repo.blob_path(key)
        origin, adopted = "here", None
        stood = self._repo.find(self._listing.revision, file.path) is not None
        digests = self._hashed(blob, file, claims) if blob.is_file() else None
        if digests is not None and not self._is_ours(key):
            adopted = HUB_PROGRAM
        sha256 = self._sha256(file)
        if digests is None and sha256 is not None:
            adopted, digests = self._adopted(file, sha256, claims)
            origin = adopted or origin
        if digests is None:
            origin, digests = "downloaded", self._downloaded(file, key, claims)
            blob = self._settled(locks, self._repo.part_path(key), key, digests)
        stored = self._published(file, blob, digests, claims, role)
        # A file that stood at this very place stays there when ours goes.
        in_place = stood and adopted == HUB_PROGRAM
        return replace(stored, adopted=adopted, in_place=in_place), origin

    def finish(self, stored: Sequence[StoredFile], how: Sequence[str]) -> Pulled:
        """The checks of what the files say, and the manifest."""
        paths = [Path(each.location) for each in stored if each.role == "model"]
        structure = check_structure(paths)
        if not structure.passed:
            raise IntegrityError(structure.message, "it is so at its source: tell its owner")
        quantization = check_quantization(paths, self._order.variant.files[0].path)
        header = localfile.read_header(paths[0])
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        verified: dict[CheckName, str] = {"integrity": now, "structure": now}
        warnings = []
        if quantization.passed:
            verified["quantization"] = now
        else:
            warnings.append(quantization.message)
        listing, model = self._listing, self._order.model
        manifest = Manifest(
            kind=listing.kind,
            repo=listing.repo,
            revision=listing.revision,
            asked=listing.asked,
            authority=listing.authority,
            label=self._label,
            quant=self._order.variant.quant or header.quant,
            files=tuple(stored),
            model=Facts(
                name=model.name,
                architecture=model.architecture,
                n_layers=model.n_layers,
                n_ctx_train=model.n_ctx_train,
                is_generative=model.is_generative,
            ),
            header_sha256=header_sha256(paths[0]),
            chat_template_sha256=chat_template_sha256(header),
            pulled_at=now,
            verified=verified,
        )
        older = self._beside_before(manifest)
        manifest = replace(manifest, files=(*stored, *older))
        changed = self._store.add(manifest)
        for file, _ in self._order.files:
            forget(self._repo.part_path(self._key(file)))
        if changed is not None:
            warnings.append(changed)
        if listing.asked:
            self._repo.set_ref(listing.asked, listing.revision)
        return Pulled(
            manifest,
            self._fetched_bytes,
            (*how, *("here" for _ in older)),
            (structure, quantization),
            tuple(warnings),
        )

    def _beside_before(self, manifest: Manifest) -> list[StoredFile]:
        """Projectors and drafts that came with this version before, and were not asked for now."""
        asked = {file.path for file in manifest.files}
        return [
            file
            for version in self._store.versions(manifest.name)
            if version.revision == manifest.revision
            for file in version.files
            if file.role != "model" and file.path not in asked and is_untouched(file)
        ]

    @property
    def _label(self) -> str:
        """What tells the model from others of its repository; in a web folder lie unlike ones."""
        variant = self._order.variant
        return variant.name.stem if self._listing.kind == "url" else variant.label

    # -- one file ------------------------------------------------------------------------------

    def _is_missing(self, file: RepoFile) -> bool:
        """Whether it has to be downloaded, as far as names and sizes tell."""
        if self._repo.blob_path(self._key(file)).exists() or self._vouched(file) is not None:
            return False
        sha256 = self._sha256(file)
        if sha256 is None or self._order.is_llamafile:
            return True
        found = find_elsewhere(file.size_bytes, sha256, file.path.rpartition("/")[2])
        return all(each.evidence == "size" for each in found)

    def _key(self, file: RepoFile) -> str:
        """What the file's bytes are filed under while they are not known."""
        told = self._sha256(file) or file.git_sha1
        return told or url_digest(f"{self._listing.revision}/{file.path}")

    def _sha256(self, file: RepoFile) -> str | None:
        """What its sha256 has to be, where the listing or the person says."""
        own = self._order.claims if file in self._order.variant.files else ()
        said = (claim.hex for claim in own if claim.algorithm == "sha256")
        return file.sha256 or next(said, None)

    def _claims(self, file: RepoFile) -> tuple[Claim, ...]:
        """All that anybody says of the file's digests, the person first."""
        own = self._order.claims if file in self._order.variant.files else ()
        listed = self._listing.claims(file)
        source = self._order.source
        beside = source.checksums(self._listing, file) if source is not None else ()
        return tuple(dict.fromkeys((*own, *listed, *beside)))

    def _vouched(self, file: RepoFile) -> StoredFile | None:
        """The file as a manifest has it, where nobody touched it since it was proven."""
        listing = self._listing
        for manifest in self._store.contents().manifests:
            if (manifest.kind, manifest.repo) != (listing.kind, listing.repo):
                continue
            if "integrity" not in manifest.verified:  # `verify` found it damaged
                continue
            for each in manifest.files:
                is_same_version = manifest.revision == listing.revision
                if each.path != file.path or not is_untouched(each, self._order.claims):
                    continue
                if is_same_version:
                    return each
                blob = self._repo.blob_of(Path(each.location))
                is_same = file.sha256 is not None and _is_of(each, "sha256", file.sha256)
                if is_same and blob is not None:
                    name = model_path(file.path)
                    location = self._repo.publish(blob, listing.revision, name)
                    return replace(each, location=str(location), in_place=False)
        return None

    def _is_ours(self, key: str) -> bool:
        """Whether a file that no manifest vouches for was downloaded by us: its side-car is left.

        In folders of ours nobody else puts any.
        """
        left = side_car(self._repo.part_path(key)).exists()
        return left or self._listing.kind != "hf"

    def _hashed(
        self, path: Path, file: RepoFile, claims: Sequence[Claim]
    ) -> dict[Algorithm, str] | None:
        """The digests of what lies here; None where they are not those that are claimed."""
        digests = hash_file(path, claims, self._verifying(file))
        is_right = all(digests[claim.algorithm] == claim.hex for claim in claims)
        return digests if is_right and claims else None

    def _verifying(self, file: RepoFile) -> Callable[[int], None]:
        return lambda n_bytes: self._on_step(Step(file.path, "verifying", n_bytes, file.size_bytes))

    def _adopted(
        self, file: RepoFile, sha256: str, claims: Sequence[Claim]
    ) -> tuple[str | None, dict[Algorithm, str] | None]:
        """The program that has the very file, and its digests, once it is linked into its place."""
        name = file.path.rpartition("/")[2]
        for candidate in find_elsewhere(file.size_bytes, sha256, name):
            adopted = adopt(candidate, self._repo, claims, self._verifying(file))
            if adopted is not None:
                return adopted.program, dict(adopted.digests)
        return None, None

    def _downloaded(
        self, file: RepoFile, key: str, claims: Sequence[Claim]
    ) -> dict[Algorithm, str]:
        """The digests of the file, which is then whole in its part."""

        def told(progress: Progress) -> None:
            self._on_step(
                Step(
                    file.path,
                    "downloading",
                    progress.done_bytes,
                    progress.size_bytes,
                    progress.hashed_bytes,
                    progress.n_connections,
                    progress.trouble,
                )
            )

        assert self._order.source is not None
        done = download(
            self._order.source.remote(self._listing, file),
            self._repo.part_path(key),
            claims,
            revision=self._listing.revision,
            connections=self._order.connections,
            on_progress=told,
        )
        self._fetched_bytes += done.fetched_bytes
        return dict(done.digests)

    def _settled(
        self, locks: contextlib.ExitStack, part: Path, key: str, digests: Mapping[Algorithm, str]
    ) -> Path:
        """The blob that a finished part has become; where nothing named it before, its sha256."""
        name = key if key in digests.values() else digests["sha256"]
        if name != key:
            locks.enter_context(self._repo.lock(name))
        settle(part, self._repo.blob_path(name))
        return self._repo.blob_path(name)

    def _extracted(
        self, locks: contextlib.ExitStack, file: RepoFile, key: str, claims: Sequence[Claim]
    ) -> StoredFile:
        """The model out of a llamafile, which then goes."""
        part = self._repo.part_path(key)
        path = self._order.archive or part
        if self._order.archive is None:
            self._downloaded(file, key, claims)
        elif claims and self._hashed(path, file, claims) is None:
            raise IntegrityError(f"{path} has another digest than {claims[0].by} says")
        with localfile.FileSource(path) as archive:
            member = llamafile.find_gguf(archive)

        def told(done_bytes: int) -> None:
            self._on_step(Step(member.name, "extracting", done_bytes, member.size_bytes))

        taken_out = part.with_name(f"{key}.gguf.part")
        digests = llamafile.extract(path, member, taken_out, told)
        blob = self._settled(locks, taken_out, digests["sha256"], digests)
        remove(part)
        # What was said is of the archive, and what will be verified is the model.
        proofs = [
            Claim("sha256", digests["sha256"], f"{claim.by}{_of_archive(claim)}", claim.proves)
            for claim in claims
        ]
        return self._published(file, blob, digests, proofs, "model")

    def _published(
        self,
        file: RepoFile,
        blob: Path,
        digests: Mapping[Algorithm, str],
        claims: Sequence[Claim],
        role: Role,
    ) -> StoredFile:
        name = model_path(file.path)
        location = self._repo.publish(blob.name, self._listing.revision, name)
        status = location.stat()
        return StoredFile(
            path=file.path,
            location=str(location),
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            digests=dict(digests),
            proofs=tuple(claims),
            role=role,
        )


def is_untouched(file: StoredFile, claims: Sequence[Claim] = ()) -> bool:
    """Whether a file is as it was proven, and proven by all of these claims."""
    try:
        status = os.stat(file.location)
    except OSError:
        return False
    if not all(_is_of(file, claim.algorithm, claim.hex) for claim in claims):
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)


def _is_of(file: StoredFile, algorithm: Algorithm, digest: str) -> bool:
    """Whether a file was proven to have this digest; of a llamafile's model, the llamafile."""
    claimed = Claim(algorithm, digest, "")
    if any(proof.by.endswith(_of_archive(claimed)) for proof in file.proofs):
        return True
    return file.digests.get(algorithm) == digest


def _of_archive(claim: Claim) -> str:
    """What is noted of a llamafile's digest behind the name of whoever said it."""
    return f", whose llamafile has the {claim.algorithm} {claim.hex}"


def model_path(path: str) -> str:
    """What a file of a repository is called here: of a llamafile only the model is kept."""
    stem = path[: -len(".llamafile")]
    return f"{stem}.gguf" if path.lower().endswith(".llamafile") else path
