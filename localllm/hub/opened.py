"""What the headers of a model tell, wherever they were read: the one way from them to a candidate.

Knows headers. Knows nothing of files and networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from localllm.errors import GgufError, LocalllmError
from localllm.gguf import Header, MemorySource
from localllm.plan import Model
from localllm.variants import RepoFile
from localllm.weights import Weights, read_weights


@dataclass(frozen=True)
class Opened:
    """A model whose headers were read: what they tell, and their outlines, to plan from.

    `unusable` says why one of several cannot be run; then nothing but its name is known. `label` is
    what its repository calls it.
    """

    model: Model
    weights: Weights
    outlines: tuple[MemorySource, ...]
    unusable: str | None = None
    label: str = ""


def opened(
    headers: Sequence[Header],
    outlines: Sequence[MemorySource],
    *,
    ref: str,
    path: str,
    source: str,
    revision: str | None = None,
    files: tuple[RepoFile, ...] = (),
) -> Opened:
    """The model that these headers, one for each of its files, describe.

    Args:
        headers: in the order of the shards.
        outlines: of the same.
        ref: what the person typed.
        path: of the first file.
        source: "file", "demo", "hf", ...
        revision: what the source is pinned to.
        files: as the repository lists them.

    Raises:
        GgufError: they do not belong together, or name no model.
        LocalllmError: they are of something that cannot be run by itself.
    """
    header = headers[0]
    if header.split_count != len(headers):
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
        path=path,
        source=source,
        revision=revision,
        name=header.text("general.name") or PurePosixPath(path).stem,
        architecture=header.architecture,
        n_layers=header.n_layers,
        n_ctx_train=header.n_ctx_train,
        quant=header.quant,
        size_bytes=sum(part.file_bytes for part in headers),
        has_chat_template=header.has_chat_template,
        is_generative=header.is_generative,
        files=files,
    )
    return Opened(model, read_weights(headers), tuple(outlines))
