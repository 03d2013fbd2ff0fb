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
    """A model on this disk: what its headers tell, and their outlines, to plan from."""

    model: Model
    outlines: tuple[MemorySource, ...]


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
    return Opened(model, tuple(outlines))
