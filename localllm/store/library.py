"""The store: every model version on this disk, under the names that a person knows them by.

Knows manifests and which version of a name is current. What goes when a version goes is in
removal.py; nothing here looks inside a model.

    MANIFESTS/<name>/<revision>.json   a version
    MANIFESTS/<name>/current           which of them the name means, and which it meant before
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm import paths
from localllm.errors import IntegrityError, NotFoundError, UsageError
from localllm.hardware import Finding
from localllm.store.atomic import folder_name, locked, write_atomically, writing
from localllm.store.layout import Kind, Repo, check_revision, hub_cache_root
from localllm.store.manifest import SCHEMA_VERSION, DamagedError, Manifest, from_bytes, to_bytes
from localllm.store.removal import Removal, take_away, take_leftovers

#: Some hundred times the manifest of a model in a hundred parts; bounds what a wrong file costs.
_FILE_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Contents:
    """What is in the store.

    Attributes:
        manifests: every version, by name, the newest of a name first.
        findings: manifests that cannot be read.
    """

    manifests: tuple[Manifest, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Store:
    """The models on this disk.

    Attributes:
        manifests_root: a folder for the manifests.
        hub_root: the hub's own cache, for models of kind "hf".
        models_root: a folder of ours; the cache of another kind is below it, by its kind.
    """

    manifests_root: Path
    hub_root: Path
    models_root: Path

    @classmethod
    def here(cls) -> Store:
        """The store of this person."""
        return cls(paths.data_dir() / "manifests", hub_cache_root(), paths.models_dir())

    def repo(self, kind: Kind, repo: str) -> Repo:
        """The folder for a repository's files; errors as Repo."""
        return Repo.of(self._roots[kind], kind, repo)

    def contents(self) -> Contents:
        """All there is; a manifest that cannot be read is a finding."""
        return self._read_all(self.manifests_root.glob("*/*.json"))

    def versions(self, name: str) -> tuple[Manifest, ...]:
        """All versions of "hf:org/repo:Q4_K_M", the newest first."""
        return self._read_all(self._folder(name).glob("*.json")).manifests

    def current(self, name: str) -> Manifest | None:
        """The version that the name means; None where there is none.

        Precedence: 1. what `add` or `use` set; 2. where that is gone or damaged, the newest.
        """
        versions = self.versions(name)
        revision, _ = self._moves(name)
        return next((each for each in versions if each.revision == revision), None) or next(
            iter(versions), None
        )

    def previous(self, name: str) -> Manifest | None:
        """The version that the name meant before, where it is still here."""
        _, revision = self._moves(name)
        return next((each for each in self.versions(name) if each.revision == revision), None)

    def find(
        self, kind: Kind, repo: str, label: str | None = None, revision: str | None = None
    ) -> tuple[Manifest, ...]:
        """What is here of a repository, one version of each name.

        Args:
            kind: the source's.
            repo: the repository; letters in any case, as on the hub.
            label: of one variant, likewise; None for all.
            revision: the beginning of a commit, or a branch as it was asked for; None for the
                current versions.
        """
        found = {
            each.name: each
            for each in reversed(self.contents().manifests)  # so that the newest wins
            if each.kind == kind
            and each.repo.lower() == repo.lower()
            and (label is None or each.label.lower() == label.lower())
            and (revision is None or each.asked == revision or each.revision.startswith(revision))
        }
        if revision is None:
            return tuple(each for name in sorted(found) if (each := self.current(name)))
        return tuple(found[name] for name in sorted(found))

    def add(self, manifest: Manifest) -> str | None:
        """Takes in a version whose files are published, and makes its name mean it.

        Returns:
            A warning for a person where its chat template is another than before.

        Raises:
            NotFoundError: a file of it is not there: another process removed it meanwhile.
            DiskError: the manifest cannot be written.
        """
        with self._locked():
            _check_present(manifest)
            older = self.current(manifest.name)
            self._write(manifest)
            if older is None or older.revision != manifest.revision:
                self._move(manifest.name, manifest.revision, older.revision if older else None)
        return template_warning(older, manifest) if older else None

    def update(self, manifest: Manifest) -> None:
        """Writes a version that is here anew, such as after a check.

        Raises:
            NotFoundError: it is not here any more. DiskError: it cannot be written.
        """
        with self._locked():
            if not self._path(manifest).exists():
                raise NotFoundError(f"{manifest.name}@{manifest.revision[:12]} was removed")
            self._write(manifest)

    def use(self, name: str, revision: str | None = None) -> Manifest:
        """Makes a name mean another of its versions.

        Args:
            name: "hf:org/repo:Q4_K_M".
            revision: the beginning of one; None for the version that it meant before.

        Raises:
            NotFoundError: there is no such version. UsageError: several are meant.
        """
        with self._locked():
            versions, current = self.versions(name), self.current(name)
            if current is None:
                raise NotFoundError(f"there is no {name} here", "localllm list shows what is")
            listed = ", ".join(f"{each.revision[:12]} of {each.pulled_at}" for each in versions)
            if revision is None:
                wanted = self.previous(name)
                if wanted is None:
                    raise NotFoundError(
                        f"{name} has meant no other version before", f"name one of: {listed}"
                    )
            else:
                found = [each for each in versions if each.revision.startswith(revision)]
                if not found:
                    raise NotFoundError(
                        f"there is no version {revision} of {name} here", f"there is: {listed}"
                    )
                if len(found) > 1:
                    raise UsageError(
                        f"{revision!r} may be any of {len(found)} versions of {name}",
                        f"name more of one: {', '.join(each.revision for each in found)}",
                    )
                wanted = found[0]
            if wanted.revision != current.revision:
                self._move(name, wanted.revision, current.revision)
            return wanted

    def remove(self, manifest: Manifest, *, dry_run: bool = False) -> Removal:
        """Removes a version, and its files as far as nothing else needs them.

        The name then means the version before, or else its newest one.

        Returns:
            What goes, and what stays and why; with dry_run, what would.

        Raises:
            DiskError: the manifest cannot be removed.
        """
        with self._locked():
            key = manifest.name, manifest.revision
            everything = self.contents().manifests
            staying = [each for each in everything if (each.name, each.revision) != key]
            if not dry_run:
                # First, so that none ever claims a file that is gone.
                self._drop(manifest)
            return take_away([manifest], staying, dry_run=dry_run)

    def prune(self, now: float, *, dry_run: bool = False) -> Removal:
        """Removes what nobody will miss; doing it twice does no harm.

        1. Versions that their name neither means nor meant before. 2. Unfinished downloads that
        nobody holds or has touched for a week. 3. In our own folders, files that no manifest
        claims, likewise; not while a manifest cannot be read, as those may be its own.

        Args:
            now: seconds since 1970.
            dry_run: only say what would go.

        Raises:
            DiskError: a manifest cannot be removed.
        """
        with self._locked():
            contents = self.contents()
            kept = {
                (each.name, each.revision)
                for name in {each.name for each in contents.manifests}
                for each in (self.current(name), self.previous(name))
                if each is not None
            }
            going = [each for each in contents.manifests if (each.name, each.revision) not in kept]
            staying = [each for each in contents.manifests if each not in going]
            for each in going:
                if not dry_run:
                    self._drop(each)
            return take_away(going, staying, dry_run=dry_run) + take_leftovers(
                self.hub_root,
                [root for kind, root in self._roots.items() if kind != "hf"],
                # What goes counts as claimed: it is no leftover as well.
                None if contents.findings else contents.manifests,
                now,
                dry_run=dry_run,
            )

    @property
    def _roots(self) -> dict[Kind, Path]:
        return {"hf": self.hub_root, "ms": self.models_root / "ms", "url": self.models_root / "url"}

    def _folder(self, name: str) -> Path:
        return self.manifests_root / folder_name(name)

    def _path(self, manifest: Manifest) -> Path:
        return self._folder(manifest.name) / f"{check_revision(manifest.revision)}.json"

    def _read_all(self, found: Iterable[Path]) -> Contents:
        manifests: list[Manifest] = []
        findings: list[Finding] = []
        for path in sorted(found):
            try:
                manifests.append(self._read(path))
            except FileNotFoundError:  # removed just now
                continue
            except (OSError, DamagedError) as exc:
                findings.append(
                    Finding(
                        "warn",
                        "store.damaged-manifest",
                        f"The manifest {path} cannot be read: {exc}.",
                        f"rm {path}, then pull the model again: its files are found",
                    )
                )
        manifests.sort(key=lambda manifest: manifest.pulled_at, reverse=True)
        manifests.sort(key=lambda manifest: manifest.name)
        return Contents(tuple(manifests), tuple(findings))

    def _read(self, path: Path) -> Manifest:
        with path.open("rb") as file:
            manifest = from_bytes(file.read(_FILE_LIMIT_BYTES))
        if self._path(manifest) != path:
            raise DamagedError("it is of another model or version than its place says")
        return manifest

    def _write(self, manifest: Manifest) -> None:
        path = self._path(manifest)
        paths.private_folder(path.parent)
        with writing(path):
            write_atomically(path, to_bytes(manifest), temporary_in=self.manifests_root)

    def _drop(self, manifest: Manifest) -> None:
        """Takes a manifest out, and its name's folder with the last one."""
        path = self._path(manifest)
        with writing(path):
            path.unlink(missing_ok=True)
        remaining = self.versions(manifest.name)
        current, previous = self._moves(manifest.name)
        if not remaining:
            with contextlib.suppress(OSError):
                (path.parent / "current").unlink(missing_ok=True)
                path.parent.rmdir()
        elif manifest.revision in (current, previous):
            here = [each.revision for each in remaining]
            means = next((r for r in (current, previous) if r in here), here[0])
            before = previous if previous in here and previous != means else None
            self._move(manifest.name, means, before)

    def _moves(self, name: str) -> tuple[str | None, str | None]:
        """The revisions that a name means, and meant before; None for what is not noted."""
        try:
            noted = json.loads((self._folder(name) / "current").read_bytes())
            return check_revision(noted["current"]), noted["previous"] and check_revision(
                noted["previous"]
            )
        except (OSError, ValueError, LookupError, TypeError, IntegrityError):
            return None, None

    def _move(self, name: str, current: str, previous: str | None) -> None:
        noted = {"schema_version": SCHEMA_VERSION, "current": current, "previous": previous}
        path = self._folder(name) / "current"
        with writing(path):
            write_atomically(path, json.dumps(noted).encode(), temporary_in=self.manifests_root)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes what is in the store; none for longer than a moment."""
        paths.private_folder(self.manifests_root)
        with locked(self.manifests_root / ".lock"):
            yield


def template_warning(older: Manifest, newer: Manifest) -> str | None:
    """A warning where two versions differ in how they are talked to; else None."""
    if older.chat_template_sha256 == newer.chat_template_sha256:
        return None
    return (
        f"The chat template of {newer.name} changed between {older.revision[:12]} and"
        f" {newer.revision[:12]}: it may answer differently, and is told what a template says."
    )


def _check_present(manifest: Manifest) -> None:
    for file in manifest.files:
        try:
            size_bytes = Path(file.location).stat().st_size
        except OSError:
            size_bytes = -1
        if size_bytes != file.size_bytes:
            raise NotFoundError(
                f"{file.location} is not there any more as it was proven", "pull the model again"
            )
