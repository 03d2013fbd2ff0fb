"""Models that are files on this disk already: opening them and reading their headers.

Knows the errors of a file system, and turns them into ours. Knows nothing of what a header means.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from localllm.errors import AccessError, LocalllmError, NotFoundError, UsageError
from localllm.gguf import Header, MemorySource, parse_header, shard_paths
from localllm.hub.opened import Opened, opened
from localllm.hub.source import Listing, SourceKind
from localllm.outline import outline
from localllm.plan import Model
from localllm.variants import RepoFile, Variant, group_files
from localllm.weights import Weights


class FileSource:
    """A file on this disk, read with plain reads; use as a context manager.

    Raises (on construction):
        NotFoundError: no such file. UsageError: a folder, a pipe. AccessError: no permission.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.is_dir():
                raise UsageError(
                    f"{path} is a folder, not a GGUF file", "name the .gguf file inside it"
                )
            if path.exists() and not path.is_file():  # opening a pipe would wait for ever
                raise UsageError(
                    f"{path} is a pipe or a device, not a GGUF file",
                    "write it to a file: a model is read from the middle",
                )
            self._file = path.open("rb", buffering=0)
            self._size = path.stat().st_size
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {path}", "check the path") from None
        except PermissionError:
            raise AccessError(
                f"{path} may not be read by this user", f"chmod u+r {path}, or ask its owner"
            ) from None
        except OSError as exc:
            raise NotFoundError(f"cannot open {path}: {exc.strerror}") from exc

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Reads a piece; a disk that fails is an AccessError."""
        try:
            self._file.seek(offset)
            return self._file.read(n_bytes)
        except OSError as exc:
            raise AccessError(f"cannot read {self.path}: {exc.strerror}") from exc

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class LocalArchive:
    """A llamafile on this disk, whose model is to be taken out; an Offer.

    Attributes:
        kind, repo: see Offer; the folder stands for a repository.
    """

    kind: SourceKind = "url"

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.repo = self._path.parent.as_uri()

    @property
    def key(self) -> str:
        """What it is remembered under."""
        return f"url:{self._path.as_uri()}"

    def listing(self) -> Listing:
        """The llamafile alone; errors as FileSource."""
        with FileSource(self._path) as source:
            size = source.size_bytes
        written = f"{self._path} {size} {self._path.stat().st_mtime_ns}"
        return Listing(
            kind="url",
            repo=self.repo,
            asked="",
            revision=hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest(),
            files=(RepoFile(self._path.name, size),),
            authority="this disk",
            is_origin=False,
        )

    def remote(self, listing: Listing, file: RepoFile) -> FileSource:
        """The llamafile."""
        return FileSource(self._path)


def read_header(path: Path) -> Header:
    """The header of a file on this disk; errors as `parse_header` and `FileSource`."""
    with FileSource(path) as source:
        return parse_header(source)


def open_model(path: Path, ref: str, source: str) -> Opened:
    """Reads and checks the headers of a model, all parts of a split one.

    Args:
        path: the file; any part of a split set.
        ref: what the person typed.
        source: "file" or "demo".

    Raises:
        NotFoundError: no such file, or a part is missing.
        GgufError: a header that is not sound, or that names no model.
        UsageError, AccessError, LocalllmError: see `FileSource`; not a model to run at all.
    """
    shards = shard_paths(path)
    headers: list[Header] = []
    outlines: list[MemorySource] = []
    for shard in shards:
        if len(shards) > 1 and path.exists() and not shard.exists():
            raise NotFoundError(
                f"{path} is one of {len(shards)} parts, and {shard.name} is missing",
                "put all parts into one folder",
            )
        with FileSource(shard) as part:
            headers.append(parse_header(part))
            outlines.append(outline(part, headers[-1]))
    first = path if len(shards) == 1 else shards[0]
    return opened(headers, outlines, ref=ref, path=str(first.absolute()), source=source)


def open_folder(folder: Path, ref: str) -> list[Opened]:
    """The models in a folder (and below it), one per quantization or file.

    Projectors, drafts and what is no model are left aside, as in a repository (variants.py).

    Raises:
        NotFoundError: there is none. UsageError: several different ones. Others as `open_model`.
    """
    files = [
        RepoFile(path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in sorted(folder.rglob("*.gguf"))
        if path.is_file()
    ]
    usable = [variant for variant in group_files(files) if not variant.unusable]
    if not usable:
        raise NotFoundError(f"there is no GGUF model in {folder}", "name the .gguf file itself")
    bases = {variant.name.base: variant.files[0].path for variant in usable}
    if len(bases) > 1:
        examples = ", ".join(sorted(bases.values())[:4])
        raise UsageError(
            f"{folder} holds {len(bases)} different models: {examples}",
            "name the .gguf file of one, or a folder for each",
        )
    models = [_open_variant(folder, variant, ref) for variant in usable]
    if all(each.unusable for each in models):
        open_model(folder / usable[0].files[0].path, ref, "file")  # which says it in full
    return models


def _open_variant(folder: Path, variant: Variant, ref: str) -> Opened:
    """One of a folder's; a damaged one is no reason to leave the others."""
    path = folder / variant.files[0].path
    try:
        return open_model(path, ref, "file")
    except LocalllmError as exc:
        model = Model(
            ref=ref,
            path=str(path.absolute()),
            name=path.stem,
            quant=variant.quant,
            size_bytes=variant.size_bytes,
        )
        return Opened(model, Weights(()), (), unusable=exc.message)
