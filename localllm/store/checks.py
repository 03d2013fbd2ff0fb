"""What a model's files must pass before they are trusted: digests, structure, quantization.

Knows files and their headers. The fourth check, a short test inference, needs an engine and is
made elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import GgufError
from localllm.gguf import Header, Tensor, parse_header
from localllm.naming import read_file_name
from localllm.quants import ALIASES, FILE_TYPES, TENSOR_TYPES, find_quant
from localllm.store.adoption import OnProgress, hash_file
from localllm.store.manifest import CheckName, StoredFile
from localllm.units import format_bytes


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        name: which one.
        passed: the file may be trusted as far as this one goes.
        message: one sentence with the values in it, for a person.
    """

    name: CheckName
    passed: bool
    message: str


def is_untouched(file: StoredFile) -> bool:
    """Whether a file has the size and the time of writing that it had when it was proven."""
    try:
        status = Path(file.location).stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)


def check_integrity(file: StoredFile, on_progress: OnProgress | None = None) -> Check:
    """Whether a file still has the size and every digest that were recorded, and claimed, of it.

    Args:
        file: as its manifest has it.
        on_progress: called with the bytes hashed so far.
    """
    path = Path(file.location)
    try:
        size_bytes = path.stat().st_size
        if size_bytes != file.size_bytes:
            return Check(
                "integrity",
                False,
                f"{path} has {size_bytes} bytes, not the {file.size_bytes} that it had",
            )
        found = hash_file(path, file.proofs, on_progress)
    except OSError as exc:
        return Check("integrity", False, f"{path} cannot be read: {exc.strerror or exc}")
    # Claims agreed with what was recorded then; both are asked, as either may have been edited.
    due = [*file.digests.items(), *((claim.algorithm, claim.hex) for claim in file.proofs)]
    for algorithm, digest in due:
        if found.get(algorithm, digest) != digest:
            return Check(
                "integrity",
                False,
                f"the {algorithm} of {path} is {found[algorithm]}, not the recorded {digest}",
            )
    proven_by = ", ".join(dict.fromkeys(claim.by for claim in file.proofs))
    by = f", as {proven_by} said" if proven_by else ", as recorded here; nobody else has said"
    return Check("integrity", True, f"the sha256 of {path.name} is {found['sha256']}{by}")


def check_structure(paths: Sequence[Path]) -> Check:
    """Whether headers are sound, every tensor lies inside its file, and the set is complete.

    Args:
        paths: of all parts, in order.
    """
    try:
        headers = [_read_header(path) for path in paths]
    except (GgufError, OSError) as exc:
        return Check("structure", False, str(exc))
    n_tensors = sum(len(header.tensors) for header in headers)
    if wrong := _wrong_with_split(paths, headers, n_tensors):
        return Check("structure", False, wrong)
    size = format_bytes(sum(header.file_bytes for header in headers))
    files = f"{len(paths)} files" if len(paths) > 1 else paths[0].name
    behind = sum(header.file_bytes - _end(header) for header in headers)
    remark = f"; {format_bytes(behind)} behind them belong to none" if behind > 0 else ""
    return Check("structure", True, f"{n_tensors} tensors lie inside {files} ({size}){remark}")


def check_quantization(paths: Sequence[Path], name: str) -> Check:
    """Whether the file's name, its general.file_type and the types of its tensors agree.

    1. Where name and header both say a recipe of llama-quantize, it is the same one. 2. What that
    recipe (or the one that only one of them says) makes most of a model of, holds at least a fifth
    of the weights, and they take 0.85 to 1.5 times its bits. 3. For freer mixes (UD-, _XL, _L, an
    uploader's own, a bare Q4) only the bits count, 0.7 to 2 times; for FP4 the fifth as well.
    Embeddings, output and what is never quantized are left out; experts in FP4 too where the file
    is called otherwise, as models trained so keep them.

    Args:
        paths: of all parts, in order; their structure is sound (check_structure).
        name: of the file in its repository, with its folders.
    """
    try:
        headers = [_read_header(path) for path in paths]
    except (GgufError, OSError) as exc:
        return Check("quantization", False, str(exc))
    named, stated = read_file_name(name).quant, headers[0].quant
    rung = find_quant(named or stated or "")
    if rung is None or not rung.loadable:
        said = f"{named} is no quantization known here" if named else "the name says none"
        return Check("quantization", True, f"{said}, so there is nothing to compare")
    is_recipe = rung.name in _RECIPES and (named is None or ALIASES.get(named, named) == rung.name)
    if is_recipe and named and stated and _canonical(stated) != _canonical(rung.name):
        return Check(
            "quantization", False, f"the name says {named}, and the header that it is {stated}"
        )
    base = _base_type(rung.name)
    counted = _count_weights((t for header in headers for t in header.tensors), base)
    return _judge(named or rung.name, base, counted, is_recipe=is_recipe)


def header_sha256(path: Path) -> str:
    """The digest of a GGUF file's header: all before its tensors' data.

    Raises:
        GgufError: it is not sound. OSError: it cannot be read.
    """
    header = _read_header(path)
    with path.open("rb") as file:
        return hashlib.sha256(file.read(header.data_offset)).hexdigest()


def chat_template_sha256(header: Header) -> str | None:
    """The digest of the chat template; None where there is none."""
    template = header.text("tokenizer.chat_template")
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()


def _read_header(path: Path) -> Header:
    with _DiskFile(path) as source:
        return parse_header(source)


class _DiskFile:
    """A file as a gguf.ByteSource."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.size_bytes = path.stat().st_size
        self._file = path.open("rb", buffering=0)

    def read(self, offset: int, n_bytes: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(n_bytes)

    def __enter__(self) -> _DiskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _end(header: Header) -> int:
    """Where the last tensor ends, padding included; at most the file's end."""
    ends = [header.data_offset + tensor.offset + tensor.n_bytes for tensor in header.tensors]
    end = -(-max(ends, default=header.data_offset) // header.alignment) * header.alignment
    return min(end, header.file_bytes)


def _wrong_with_split(
    paths: Sequence[Path], headers: Sequence[Header], n_tensors: int
) -> str | None:
    """What is wrong with a split set, or None: llama.cpp numbers its parts from 0 (split.no)."""
    for no, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if header.split_count != len(paths):
            return f"{path} is one of {header.split_count} parts, and {len(paths)} are here"
        if len(paths) > 1 and header.integer("split.no") != no:
            number = header.integer("split.no")
            return f"{path} is numbered {number} in its header, where part {no} is due"
    stated = headers[0].integer("split.tensors.count")
    if len(paths) > 1 and stated is not None and stated != n_tensors:
        return f"the set of {paths[0]} states {stated} tensors, and its parts hold {n_tensors}"
    names = Counter(tensor.name for header in headers for tensor in header.tensors)
    twice = next((name for name, count in names.items() if count > 1), None)
    return f"the tensor {twice!r} is in two parts of {paths[0]}" if twice else None


# -- quantization ---------------------------------------------------------------------------

#: llama-quantize's own recipes. FP4 files are made by converters, each in its own way.
_RECIPES = {name for name in FILE_TYPES.values() if "FP4" not in name}
#: What most of a file is where the recipe is called otherwise (llama_ftype_get_default_type in
#: src/llama-quant.cpp of llama.cpp 0c1e570).
_BASES = {
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "MXFP4",
}
_TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
# Tables and heads have types of their own, and these small ones stay as they were converted
# (tensor_allows_quantization there).
_NOT_WEIGHTS = re.compile(
    r"(?:token_embd|output|per_layer_token_embd|position_embd|token_types)\.weight"
    r"|.*(?:_norm\.weight|ffn_gate_inp|ssm_conv1d|shortconv\.conv|altup|laurel"
    r"|per_layer_model_proj).*"
)
#: Rows that are no multiple of a type's block get another (tensor_type_fallback there).
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
#: F32 in a file of anything else: small matrices that a converter left. More is no remnant.
_REMNANT = 0.1

#: Of the weights, for the base type. Its least is a third, in the Q3_K_M of models with fused QKV
#: and no gate (Phi-2); half of that is left to --tensor-type and models to come.
_LEAST_SHARE = 0.2
#: Bits of all weights to bits of the base type. Recipes reach from 0.9 (IQ3_XS, with most of its
#: gates in IQ3_XXS) to 1.33 (Q3_K_L of Phi-2).
_RECIPE_BITS = (0.85, 1.5)
#: Unsloth's go below, such as IQ2_XXS experts in a UD-Q2_K_XL, and above: F16 in a UD-Q8_K_XL.
_FREE_BITS = (0.7, 2.0)


def _canonical(name: str) -> str:
    return ALIASES.get(name, name)


def _base_type(quant: str) -> str:
    """The type of most weights: "Q4_K" for "UD-Q4_K_XL"."""
    plain = quant.removeprefix("UD-")
    if plain.startswith("Q8_"):  # a Q8_K_XL too: ggml stores no Q8_K
        return "Q8_0"
    return _BASES.get(plain) or re.sub(r"_K_.*", "_K", plain)


def _count_weights(tensors: Iterable[Tensor], base: str) -> Counter[tuple[str, int]]:
    """Elements of the large matrices, by their type and the length of their rows."""
    counted: Counter[tuple[str, int]] = Counter()
    for tensor in tensors:
        if len(tensor.shape) < 2 or not tensor.name.endswith("weight"):
            continue
        # A model trained with experts in FP4 (gpt-oss) keeps them in a file of any quantization.
        is_native = "_exps" in tensor.name and "FP4" in tensor.type.name and "FP4" not in base
        if not is_native and not _NOT_WEIGHTS.fullmatch(tensor.name):
            counted[tensor.type.name, tensor.shape[0]] += tensor.n_elements
    remnants = {key: n for key, n in counted.items() if key[0] == "F32"}
    if base != "F32" and sum(remnants.values()) < _REMNANT * sum(counted.values()):
        for key in remnants:
            del counted[key]
    return counted


def _judge(
    quant: str, base: str, counted: Mapping[tuple[str, int], int], *, is_recipe: bool
) -> Check:
    """Whether weights of these types may be called by this quantization."""
    n_weights = sum(counted.values())
    if not n_weights:
        return Check("quantization", True, f"{quant} leaves no weights here to compare")
    by_type: Counter[str] = Counter()
    n_base, bits, due = 0, 0.0, 0.0
    for (kind, n_columns), n in counted.items():
        fitting = _fitting(base, n_columns)
        by_type[kind] += n
        n_base += n if kind == fitting else 0
        bits += n * _TYPES[kind].bits_per_weight
        due += n * _TYPES[fitting].bits_per_weight
    low, high = _RECIPE_BITS if is_recipe else _FREE_BITS
    mix = ", ".join(f"{n / n_weights:.0%} {kind}" for kind, n in by_type.most_common(3))
    needs_base = is_recipe or "FP4" in base
    if not low <= bits / due <= high or (needs_base and n_base < _LEAST_SHARE * n_weights):
        return Check("quantization", False, f"it is called {quant}, and its weights are {mix}")
    return Check("quantization", True, f"its weights are {mix}, as {quant} has them")


def _fitting(kind: str, n_columns: int) -> str:
    """The type, or what llama-quantize takes for rows of this length instead."""
    if n_columns % _TYPES[kind].block_elements == 0:
        return kind
    if n_columns % 32:
        return "F16"
    return _FALLBACKS.get(kind, "IQ4_NL" if kind.startswith("IQ") else "Q4_0")
