"""Models that are files on this disk already: opening them and reading their headers.

Knows the errors of a file system, and turns them into ours. Knows nothing of what a header means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localllm.errors import AccessError, GgufError, LocalllmError, NotFoundError, UsageError
from localllm.gguf import Header, MemorySource, parse_header, shard_paths
from localllm.outline import outline
from localllm.plan import Model
from localllm.variants import RepoFile, Variant, group_files
from localllm.weights import Weights, read_weights


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


def read_header(path: Path) -> Header:
    """The header of a file on this disk; errors as `parse_header` and `FileSource`."""
    with FileSource(path) as source:
        return parse_header(source)


@dataclass(frozen=True)
class Opened:
    """A model on this disk: what its headers tell, and their outlines, to plan from.

    `unusable` says why one of several cannot be run; then nothing but its name is known.
    """

    model: Model
    weights: Weights
    outlines: tuple[MemorySource, ...]
    unusable: str | None = None


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
    if path.name.lower().endswith(".llamafile"):
        raise UsageError(
            f"{path} is a llamafile, which this version cannot open yet",
            "unzip the .gguf inside it and name that",
        )
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
    header = headers[0]
    if header.split_count != len(shards):
        raise GgufError(
            f"{path} says that it is one of {header.split_count} parts, and its name does not",
            "rename the parts to …-00001-of-0000N.gguf, as they were published",
        )
    if header.architecture is None:
        raise GgufError(
            f"{path} names no architecture, so no engine can run it", "is it a LoRA or a fragment?"
        )
    if header.architecture == "clip":
        raise LocalllmError(
            f"{path} is a projector for images (mmproj), not a model",
            "name the model that it belongs to",
        )
    model = Model(
        ref=ref,
        path=str(path.absolute() if len(shards) == 1 else shards[0].absolute()),
        source=source,
        name=header.text("general.name") or path.stem,
        architecture=header.architecture,
        n_layers=header.n_layers,
        n_ctx_train=header.n_ctx_train,
        quant=header.quant,
        size_bytes=sum(part.file_bytes for part in headers),
        has_chat_template=header.has_chat_template,
        is_generative=header.is_generative,
    )
    return Opened(model, read_weights(headers), tuple(outlines))


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
    opened = [_open_variant(folder, variant, ref) for variant in usable]
    if all(each.unusable for each in opened):
        open_model(folder / usable[0].files[0].path, ref, "file")  # which says it in full
    return opened


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
