"""A header without its vocabulary: some ten KB that plan like the several MB of the whole.

Most of a header is the tokenizer's tokens, merges and scores. llama.cpp needs none of them to say
what memory a model takes: with `tokenizer.ggml.model = "no_vocab"` it asks only for the size of
the vocabulary. An outline parses as a header of its own, so it can be kept, and planned from
again, where the model itself is not.
"""

from __future__ import annotations

import struct

from localllm.errors import GgufError
from localllm.gguf import MAX_ARRAY_ELEMENTS, Array, ByteSource, Header, MemorySource

_STRING, _UINT32 = 8, 4
_MODEL = "tokenizer.ggml.model"


def outline(source: ByteSource, header: Header) -> MemorySource:
    """The header's outline, with the hole of the tensors' data behind it left open.

    Scalars of the tokenizer stay (an encoder's number of token types decides a tensor's shape);
    its arrays, its texts and the chat template go.

    Args:
        source: where the header was read from.
        header: the parsed header.

    Returns:
        The outline's bytes; its file_bytes is where the last tensor's data would end.

    Raises:
        GgufError: it states a vocabulary larger than a header can list. llama.cpp would make that
            many tokens without looking further, 40 bytes each.
    """
    arch = header.architecture or ""
    kept = [key for key in header.metadata if not _is_vocabulary(key, header)]
    records = [_record(source, header, key) for key in kept]
    records.append(_string(_MODEL) + struct.pack("<I", _STRING) + _string("no_vocab"))
    n_vocab = vocabulary_size(header)
    if n_vocab is not None and n_vocab > MAX_ARRAY_ELEMENTS:
        raise GgufError(
            f"{source.name} states a vocabulary of {n_vocab} tokens"
            f" (at most {MAX_ARRAY_ELEMENTS} are accepted)"
        )
    if n_vocab is not None and f"{arch}.vocab_size" not in header.metadata:
        records.append(_string(f"{arch}.vocab_size") + struct.pack("<II", _UINT32, n_vocab))
    start, end = header.table_span
    pieces = [
        b"GGUF",
        struct.pack("<IQQ", header.version, len(header.tensors), len(records)),
        *records,
        source.read(start, end - start),
    ]
    pieces.append(b"\0" * (-sum(map(len, pieces)) % header.alignment))
    raw = b"".join(pieces)
    # A file without tensors may end before its data would begin.
    n_data = max(0, header.file_bytes - header.data_offset)
    return MemorySource(raw, f"the outline of {source.name}", len(raw) + n_data)


def vocabulary_size(header: Header) -> int | None:
    """Tokens in the vocabulary: as stated, or as listed."""
    stated = header.integer(f"{header.architecture}.vocab_size")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.n_elements if stated is None and isinstance(tokens, Array) else stated


def _is_vocabulary(key: str, header: Header) -> bool:
    value = header.metadata[key]
    return key == _MODEL or (key.startswith("tokenizer.") and isinstance(value, (Array, str)))


def _record(source: ByteSource, header: Header, key: str) -> bytes:
    start, end = header.key_spans[key]
    return source.read(start, end - start)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
