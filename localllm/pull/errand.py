"""One order on its way, file by file: where each is, how it gets into its place, who vouches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from localllm.digests import Algorithm, Claim
from localllm.errors import DiskError, IntegrityError
from localllm.hub import llamafile, localfile
from localllm.hub.download import Progress, download
from localllm.hub.part import (
    forget,
    partial_bytes,
    remove,
    room_missing,
    settle,
    side_car,
    url_digest,
)
from localllm.pull.order import Order, Pulled, Step, model_path
from localllm.store import Facts, Manifest, Repo, Store, StoredFile
from localllm.store.adoption import HUB_PROGRAM, adopt, find_elsewhere, hash_file
from localllm.store.checks import (
    chat_template_sha256,
    check_quantization,
    check_structure,
    header_sha256,
    is_untouched,
)
from localllm.store.manifest import CheckName, Role
from localllm.variants import RepoFile


class Errand:
    """One order on its way."""

    def __init__(
        self, order: Order, store: Store, on_step: Callable[[Step], None] = lambda _: None
    ) -> None:
        self._order = order
        self._listing = order.listing
        self._store = store
        self._on_step = on_step
        self._repo: Repo = store.repo(order.listing.kind, order.listing.repo)
        self._fetched_bytes = 0

    @property
    def missing_bytes(self) -> int:
        """How much has to be downloaded, as far as names and sizes tell."""
        if self._order.archive is not None:
            return 0
        return sum(
            file.size_bytes - partial_bytes(self._repo.part_path(self._key(file)))
            for file, _ in self._order.files
            if self._is_missing(file)
        )

    def check_room(self) -> None:
        """That the disk has room for what is not here yet.

        Raises:
            DiskError: it has not.
        """
        due = self.missing_bytes
        if self._order.is_llamafile and self._is_missing(self._order.variant.files[0]):
            due += self._order.model.size_bytes  # beside the archive, until that goes
        folders = (self._repo.folder, *self._repo.folder.parents)
        folder = next(each for each in folders if each.exists())
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
            return replace(self._in_place(vouched, file), role=role), "here"
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
        said = (claim.hex for claim in self._own(file) if claim.algorithm == "sha256")
        return file.sha256 or next(said, None)

    def _claims(self, file: RepoFile) -> tuple[Claim, ...]:
        """What has to be true of the file's digests.

        1. What the person says; 2. what the listing says; 3. where the person says nothing, what
        checksum files say: a stale one is overruled by --sha256 or --md5.
        """
        own, source = self._own(file), self._order.source
        beside = () if own or source is None else source.checksums(self._listing, file)
        return tuple(dict.fromkeys((*own, *self._listing.claims(file), *beside)))

    def _vouched(self, file: RepoFile) -> StoredFile | None:
        """The file as a manifest has it, where nobody touched it since it was proven."""
        listing = self._listing
        for manifest in self._store.contents().manifests:
            if (manifest.kind, manifest.repo) != (listing.kind, listing.repo):
                continue
            if "integrity" not in manifest.verified:  # `verify` found it damaged
                continue
            is_same_version = manifest.revision == listing.revision
            for each in manifest.files:
                if each.path != file.path or not is_untouched(each):
                    continue
                if not all(each.has(claim.algorithm, claim.hex) for claim in self._own(file)):
                    continue
                is_same = file.sha256 is not None and each.has("sha256", file.sha256)
                if is_same_version or (is_same and self._repo.blob_of(Path(each.location))):
                    return each
        return None

    def _in_place(self, stored: StoredFile, file: RepoFile) -> StoredFile:
        """The stored file, at this revision as well."""
        blob = self._repo.blob_of(Path(stored.location))
        entry = self._repo.snapshot_path(self._listing.revision, model_path(file.path))
        if blob is None or stored.location == str(entry):
            return stored
        location = self._repo.publish(blob, self._listing.revision, model_path(file.path))
        return replace(stored, location=str(location), in_place=False)

    def _own(self, file: RepoFile) -> tuple[Claim, ...]:
        """What the person says of the file."""
        return self._order.claims if file in self._order.variant.files else ()

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
        stored = self._published(file, blob, digests, (), "model")
        return replace(stored, archive_proofs=tuple(claims))

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
