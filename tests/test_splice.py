"""Headers of sibling quantizations: read for little, and never taken for what they are not."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.locate import QUANTIZE, Tools
from localllm.errors import GgufError, NetworkError
from localllm.gguf import Array, ByteSource, Header, MemorySource, parse_header
from localllm.hub.localfile import FileSource
from localllm.outline import outline, vocabulary_size
from localllm.readahead import ReadAhead
from localllm.splice import MAX_FETCHED_BYTES, Reference, read_sibling
from localllm.units import KIB, MIB
from tests.ggufs import (
    I32,
    U16,
    Llama,
    TensorSpec,
    byte_vocabulary,
    header_bytes,
    string,
    value,
    write_gguf,
)
from tests.shapes import SHAPES, Shape
from tests.shapes.recipe import BASE_TYPES

#: What a real sibling costs: far below what it may cost.
USUAL_BYTES = 256 * KIB
TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
Records = list[tuple[str, bytes]]


class Counted:
    """A file of which every read is written down; behind its header it is a hole of zeros."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.name = source.name
        self.size_bytes = source.size_bytes
        self.reads: list[tuple[int, int]] = []

    @property
    def n_fetched(self) -> int:
        return sum(n_bytes for _, n_bytes in self.reads)

    def read(self, offset: int, n_bytes: int) -> bytes:
        assert 0 < n_bytes <= self.size_bytes - offset, "asks for bytes that the file has not"
        self.reads.append((offset, n_bytes))
        return self.source.read(offset, n_bytes).ljust(n_bytes, b"\0")


# -- files, record by record ---------------------------------------------------------------------


@cache
def vocabulary(n_vocab: int, letter: str = "b") -> tuple[tuple[str, bytes], ...]:
    """The records of a tokenizer; `letter` makes it another one of the same length."""
    keys: dict[str, Any] = byte_vocabulary(n_vocab)
    words = [f"{letter}{number}" for number in range(n_vocab - 259)]
    keys[TOKENS] = [*keys[TOKENS][:256], *words, *keys[TOKENS][-3:]]
    keys[MERGES] = [f"a{letter}{number} c{number % 977}" for number in range(n_vocab - 549)]
    return tuple(records(keys))


def records(keys: Mapping[str, Any]) -> Records:
    return [(key, string(key) + value(item)) for key, item in keys.items()]


def together(*groups: Sequence[tuple[str, bytes]]) -> Records:
    """Each key once, as a dictionary would have it."""
    return list(dict(itertools.chain(*groups)).items())


def gguf(
    keys: Sequence[tuple[str, bytes]], tensors: Sequence[TensorSpec], name: str = "it"
) -> MemorySource:
    """The header of a file of these records; what lies behind it is a hole."""
    table = header_bytes({}, tensors)[24:]
    n_table = sum(24 + len(spec.name.encode()) + 8 * len(spec.shape) for spec in tensors)
    raw = b"".join(
        (
            b"GGUF",
            struct.pack("<IQQ", 3, len(tensors), len(keys)),
            *(record for _, record in keys),
            table[:n_table],
        )
    )
    raw += bytes(-len(raw) % 32)
    return MemorySource(raw, name, len(raw) + sum(-(-spec.n_bytes // 32) * 32 for spec in tensors))


def sibling(shape: Shape, quant: str) -> MemorySource:
    """A quantization's header with a vocabulary of the model's own size."""
    keys = together(records(shape.metadata(quant)), vocabulary(shape.model.sizes.vocab))
    return gguf(keys, shape.tensors(quant), f"{shape.title}-{quant}.gguf")


def reference_of(source: ByteSource) -> Reference:
    """As a caller makes it: read whole, ahead."""
    ahead = ReadAhead(source)
    header = parse_header(ahead)
    return Reference(ahead.fetched[: header.data_offset], header)


QWEN = SHAPES["0.5b"]
FEW_TENSORS = (TensorSpec("token_embd.weight", (64, 151_936), "Q8_0"), TensorSpec("t", (32, 2)))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Qwen2.5-0.5B in Q4_K_M: a vocabulary of 151,936 tokens."""
    return reference_of(sibling(QWEN, "Q4_K_M"))


def usual_records() -> Records:
    keys = {**QWEN.metadata("Q8_0"), "tokenizer.chat_template": "{{ messages }}"}
    return together(records(keys), vocabulary(151_936))


def assert_read_as_whole(source: ByteSource, reference: Reference) -> Counted:
    """The sibling is read, as if it had been read whole."""
    counted = Counted(source)
    found = read_sibling(counted, reference)
    assert found is not None
    header = parse_header(source)
    assert found == (header, outline(source, header))
    return counted


# -- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_a_sibling_of_every_shape_is_read_for_little(shape: Shape) -> None:
    reference = reference_of(sibling(shape, shape.quants[0]))
    counted = assert_read_as_whole(sibling(shape, shape.quants[-1]), reference)
    assert counted.n_fetched <= USUAL_BYTES
    assert len(counted.reads) <= 10


def test_ten_quantizations_cost_one_header_and_less_than_a_mib_for_each_other() -> None:
    quants = [quant for quant in BASE_TYPES if quant != "MXFP4"][:10]
    whole = Counted(sibling(QWEN, quants[0]))
    reference = reference_of(whole)
    assert vocabulary_size(reference.header) == 151_936
    assert len(reference.data) > 5 * MIB
    assert whole.n_fetched <= len(reference.data) + MIB
    for quant in quants[1:]:
        counted = assert_read_as_whole(sibling(QWEN, quant), reference)
        assert counted.n_fetched <= USUAL_BYTES < MIB
        assert parse_header(counted).quant == quant


def _insert_before(key: str, *more: tuple[str, Any]) -> Callable[[Records], Records]:
    def change(keys: Records) -> Records:
        at = [name for name, _ in keys].index(key)
        return [*keys[:at], *records(dict(more)), *keys[at:]]

    return change


def _append(*more: tuple[str, Any]) -> Callable[[Records], Records]:
    return lambda keys: [*keys, *records(dict(more))]


def _set(key: str, item: Any) -> Callable[[Records], Records]:
    return lambda keys: together(keys, records({key: item}))


def _shuffled(keys: Records) -> Records:
    return random.Random(4).sample(keys, len(keys))


_IMATRIX = (
    ("quantize.imatrix.file", "/models_out/Qwen2.5-0.5B-Instruct-GGUF/imatrix.dat"),
    ("quantize.imatrix.dataset", "/training_dir/calibration_datav3.txt"),
    ("quantize.imatrix.entries_count", I32(168)),
    ("quantize.imatrix.chunks_count", I32(128)),
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda keys: keys, id="nothing"),
        pytest.param(_set("general.name", "Qwen2.5 0.5B Instruct " * 5), id="a longer name"),
        pytest.param(_insert_before(TOKENS, *_IMATRIX), id="an imatrix before the vocabulary"),
        pytest.param(_insert_before(MERGES, *_IMATRIX), id="an imatrix within the vocabulary"),
        pytest.param(_append(*_IMATRIX), id="an imatrix behind the vocabulary"),
        pytest.param(lambda keys: keys[::-1], id="keys in reverse"),
        pytest.param(_shuffled, id="keys in any order"),
        pytest.param(_set("tokenizer.chat_template", "x" * 20_000), id="another template"),
        pytest.param(_set("tokenizer.chat_template", "x" * 200_000), id="a very long template"),
        pytest.param(
            _insert_before(TOKENS, ("tokenizer.chat_template.tool_use", "x" * 40_000)),
            id="a template before the vocabulary",
        ),
        pytest.param(lambda keys: [k for k in keys if "template" not in k[0]], id="no template"),
        pytest.param(lambda keys: [k for k in keys if k[0] != MERGES], id="no merges"),
        pytest.param(
            lambda keys: [k for k in keys if not k[0].startswith("tokenizer.")], id="no vocabulary"
        ),
        pytest.param(_set("general.file_type", 18), id="another file type"),
    ],
)
def test_siblings_differ_around_the_vocabulary(
    change: Callable[[Records], Records], reference: Reference
) -> None:
    counted = assert_read_as_whole(gguf(change(usual_records()), FEW_TENSORS), reference)
    assert counted.n_fetched <= 2 * USUAL_BYTES


def test_what_differs_is_the_siblings_own(reference: Reference) -> None:
    keys = _set("tokenizer.chat_template", "theirs")(usual_records())
    found = read_sibling(gguf(keys, FEW_TENSORS), reference)
    assert found is not None
    header, _ = found
    assert header.text("tokenizer.chat_template") == "theirs"
    assert header.quant == "Q8_0"
    assert header.tensors != reference.header.tensors
    assert header.metadata[TOKENS] == Array(151_936, None)


@pytest.mark.parametrize("n_bytes", [-4200, -4096, -100, -30, -29, -20, -8, -1, 0, 1])
def test_a_vocabulary_may_begin_anywhere_about_the_end_of_a_block(
    n_bytes: int, reference: Reference
) -> None:
    source = beginning_at(32 * KIB + n_bytes)
    assert assert_read_as_whole(source, reference).n_fetched <= USUAL_BYTES


def beginning_at(at: int) -> MemorySource:
    """A sibling whose vocabulary begins there."""

    def described(n_letters: int) -> MemorySource:
        text = records({"general.description": "x" * n_letters})
        return gguf([*text, *usual_records()], FEW_TENSORS)

    source = described(at - parse_header(described(0)).key_spans[TOKENS][0])
    assert parse_header(source).key_spans[TOKENS][0] == at
    return source


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        pytest.param(
            "tokenizer.chat_template", "x" * 200_000, "x" * 50_000 + "y" * 149_999 + "x", id="text"
        ),
        pytest.param(
            "qwen2.table", [1] * 50_000, [1] * 20_000 + [2] * 4_000 + [1] * 26_000, id="a table"
        ),
    ],
)
def test_only_the_vocabulary_is_taken_from_the_reference(key: str, old: Any, new: Any) -> None:
    whole = reference_of(gguf(_set(key, old)(usual_records()), FEW_TENSORS))
    assert set(whole.large_records()) == {TOKENS, MERGES, "tokenizer.ggml.token_type"}
    assert_read_as_whole(gguf(_set(key, new)(usual_records()), FEW_TENSORS), whole)


def test_files_may_end_with_or_without_padding(reference: Reference) -> None:
    tensors = [TensorSpec("a", (32, 2)), TensorSpec("b", (5,))]
    whole = gguf(usual_records(), tensors)
    for n_missing in range(12 + 1):  # 20 bytes of 32 are the tensor's
        cut = MemorySource(whole.data, "it", whole.size_bytes - n_missing)
        assert_read_as_whole(cut, reference)


def test_any_sibling_can_be_the_reference() -> None:
    sources = [sibling(QWEN, quant) for quant in ("Q2_K", "Q8_0")]
    for one, other in (sources, sources[::-1]):
        assert_read_as_whole(other, reference_of(one))


def test_a_reference_without_the_end_of_its_vocabulary_serves_what_it_has() -> None:
    whole = reference_of(sibling(QWEN, "Q4_K_M"))
    end_of_tokens = whole.header.key_spans[TOKENS][1]
    part = Reference(whole.data[: end_of_tokens + 100], whole.header)
    assert list(part.large_records()) == [TOKENS]
    assert read_sibling(sibling(QWEN, "Q8_0"), part) is None  # the rest is too much to fetch


# -- split sets ----------------------------------------------------------------------------------


def _split_keys(number: int) -> dict[str, Any]:
    return {"split.no": U16(number), "split.count": U16(2), "split.tensors.count": I32(2)}


@pytest.mark.parametrize("first", [[], FEW_TENSORS[:1]], ids=["no tensors first", "some first"])
def test_every_file_of_a_split_set_is_a_sibling(
    first: Sequence[TensorSpec], reference: Reference
) -> None:
    one = gguf([*usual_records(), *records(_split_keys(0))], first)
    two = gguf(records(_split_keys(1)), FEW_TENSORS[1:])
    assert assert_read_as_whole(one, reference).n_fetched <= USUAL_BYTES
    assert assert_read_as_whole(two, reference).n_fetched <= two.size_bytes


def test_what_llama_quantize_and_llama_gguf_split_make_is_read(
    tools: Tools, tmp_path: Path
) -> None:
    shape = Llama(n_vocab=151_936, kind="F16", file_type="F16")
    keys = {**shape.metadata(), MERGES: [f"w {number}" for number in range(150_000)]}
    f16 = write_gguf(tmp_path / "m-F16.gguf", keys, shape.tensors())
    quantized, split = tmp_path / "m-Q8_0.gguf", tmp_path / "m-Q4_0"
    _run(tools.path(QUANTIZE), str(f16), str(quantized), "Q8_0", "1")
    splitter = tools.path(QUANTIZE).with_name("llama-gguf-split")
    _run(splitter, "--split", "--split-max-tensors", "15", str(quantized), str(split))
    shards = sorted(tmp_path.glob("m-Q4_0-*.gguf"))
    assert len(shards) == 2
    with FileSource(f16) as source:
        reference = reference_of(source)
    assert len(reference.data) > 4 * MIB
    for path in (quantized, *shards):
        with FileSource(path) as source:
            assert assert_read_as_whole(source, reference).n_fetched <= USUAL_BYTES


def _run(*argv: str | Path) -> None:
    subprocess.run([str(arg) for arg in argv], capture_output=True, timeout=120, check=True)


# -- what is not taken for a sibling -------------------------------------------------------------


def _with_vocabulary(other: Sequence[tuple[str, bytes]]) -> MemorySource:
    return gguf(together(usual_records(), other), FEW_TENSORS)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: vocabulary(151_935), id="a token less"),
        pytest.param(lambda: vocabulary(152_064), id="some tokens more"),
        pytest.param(lambda: vocabulary(32_000), id="another size"),
        pytest.param(lambda: vocabulary(151_936, "d"), id="other words of the same length"),
        pytest.param(
            lambda: records({MERGES: [f"ad{n} c{n % 977}" for n in range(151_387)]}),
            id="other merges of the same length",
        ),
        pytest.param(
            lambda: records({TOKENS: [0.5] * 151_936, "tokenizer.ggml.model": "llama"}),
            id="another type",
        ),
        pytest.param(lambda: records({TOKENS: "none"}), id="text for a vocabulary"),
    ],
)
def test_another_vocabulary_is_told_by_its_first_bytes(
    other: Callable[[], Sequence[tuple[str, bytes]]], reference: Reference
) -> None:
    counted = Counted(_with_vocabulary(other()))
    assert read_sibling(counted, reference) is None
    assert counted.n_fetched <= 4 * 36 * KIB


@pytest.mark.parametrize(
    "where", [0, 1 / 2, 1], ids=["at its beginning", "in its middle", "at its end"]
)
@pytest.mark.parametrize("key", [TOKENS, MERGES, "tokenizer.ggml.token_type"])
def test_a_record_is_compared(key: str, where: float, reference: Reference) -> None:
    whole = gguf(usual_records(), FEW_TENSORS)
    start, end = parse_header(whole).key_spans[key]
    raw = bytearray(whole.data)
    raw[start + 200 + int(where * (end - start - 400))] ^= 1
    assert read_sibling(MemorySource(bytes(raw), "it", whole.size_bytes), reference) is None


@pytest.mark.parametrize("n_bytes", [100, 40, 29, 20, 1])
def test_a_record_is_compared_though_the_block_ends_at_its_beginning(
    n_bytes: int, reference: Reference
) -> None:
    whole = beginning_at(32 * KIB - n_bytes)
    raw = bytearray(whole.data)
    raw[32 * KIB + 200] ^= 1
    assert read_sibling(MemorySource(bytes(raw), "it", whole.size_bytes), reference) is None


def test_a_large_vocabulary_that_the_reference_has_not_is_too_much() -> None:
    small = reference_of(gguf(records(QWEN.metadata("Q8_0")), FEW_TENSORS))
    assert small.large_records() == {}
    counted = Counted(gguf(usual_records(), FEW_TENSORS))
    assert read_sibling(counted, small) is None
    assert MAX_FETCHED_BYTES - 64 * KIB <= counted.n_fetched <= MAX_FETCHED_BYTES


@pytest.mark.parametrize("n_bytes", [-(2**20), -32, -1, 1, 32, 2**20, 2**40, 2**50])
def test_a_file_of_another_size_than_its_tensors_need_is_refused(
    n_bytes: int, reference: Reference
) -> None:
    whole = gguf(usual_records(), FEW_TENSORS)
    assert_read_as_whole(whole, reference)
    lying = Counted(MemorySource(whole.data, "it", whole.size_bytes + n_bytes))
    assert read_sibling(lying, reference) is None
    assert lying.n_fetched <= USUAL_BYTES


@pytest.mark.parametrize("n_bytes", [0, 3, 24, 1000, 40_000, 2_000_000, 5_800_000, -40])
@pytest.mark.parametrize("is_said", [True, False], ids=["and says so", "and says more"])
def test_a_file_that_ends_in_its_header_is_refused(
    n_bytes: int, is_said: bool, reference: Reference
) -> None:
    whole = sibling(QWEN, "Q8_0")
    raw = whole.data[:n_bytes]
    assert len(raw) < len(whole.data)
    size_bytes = len(raw) if is_said else whole.size_bytes
    assert read_sibling(MemorySource(raw, "cut", size_bytes), reference) is None


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"<!DOCTYPE html>", id="a web page"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", id="an LFS pointer"),
        pytest.param(bytes(4 * MIB), id="zeros"),
    ],
)
def test_what_is_no_gguf_is_refused(raw: bytes, reference: Reference) -> None:
    assert read_sibling(MemorySource(raw), reference) is None


@pytest.mark.parametrize("n_read", range(1, 8))
def test_an_error_of_the_network_is_not_swallowed(n_read: int, reference: Reference) -> None:
    class Failing(Counted):
        def read(self, offset: int, n_bytes: int) -> bytes:
            piece = super().read(offset, n_bytes)
            if len(self.reads) == n_read:
                raise NetworkError("the connection was reset")
            return piece

    with pytest.raises(NetworkError, match="was reset"):
        read_sibling(Failing(sibling(QWEN, "Q8_0")), reference)


def test_a_vocabulary_within_a_text_is_not_taken_for_the_files_own(reference: Reference) -> None:
    fake = dict(vocabulary(151_936))[TOKENS]
    for keys in (
        [*records({"general.description": b"x" + fake}), *usual_records()],
        [*records({"general.description": b"x" + fake}), *records({TOKENS: ["a", "b"]})],
    ):
        assert read_sibling(gguf(keys, FEW_TENSORS), reference) is None


def test_a_vocabulary_that_comes_twice_is_refused(reference: Reference) -> None:
    twice = gguf([*usual_records(), *vocabulary(151_936)], FEW_TENSORS)
    counted = Counted(twice)
    assert read_sibling(counted, reference) is None
    assert counted.n_fetched <= MAX_FETCHED_BYTES


# -- mutations -----------------------------------------------------------------------------------

N_MUTATIONS = 3000
_EXTREMES = (0, 1, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _damage(raw: bytearray, at: int, rng: random.Random) -> None:
    """One of: flipped bits, an extreme number, bytes taken out, others put in."""
    kind = rng.randrange(4)
    if kind == 0:
        raw[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        size = rng.choice((4, 8))
        extreme = rng.choice(_EXTREMES) & (256**size - 1)
        raw[at : at + size] = extreme.to_bytes(size, "little")
    elif kind == 2:
        del raw[at : at + rng.choice((1, 8, 32, 300, 100_000))]
    else:
        copied = rng.randrange(len(raw))
        raw[at:at] = raw[copied : copied + rng.choice((1, 8, 32, 300, 100_000))]


def _place(header: Header, rng: random.Random) -> int:
    """Anywhere, but mostly in the metadata, about the ends of records, and in the tensor table."""
    if rng.random() < 0.2:
        return rng.randrange(header.data_offset)
    ends = [0, *(end for span in header.key_spans.values() for end in span), *header.table_span]
    return min(max(0, rng.choice(ends) + rng.randrange(-40, 80)), header.data_offset - 1)


def test_a_damaged_sibling_is_read_as_it_is_or_refused() -> None:
    """Damage deep inside a spliced record goes unseen: that is for the file's hash to tell."""
    shape = Llama(n_vocab=6000, kind="Q8_0")
    keys = together(records(shape.metadata()), vocabulary(6000))
    reference = reference_of(gguf(keys, shape.tensors()))
    assert set(reference.large_records()) == {TOKENS, MERGES}
    sound = gguf([*keys, *records(dict(_IMATRIX))], shape.tensors())
    header = parse_header(sound)
    rng = random.Random(20261120)
    n_taken, n_refused, n_unsound = 0, 0, 0
    for number in range(N_MUTATIONS):
        raw = bytearray(sound.data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            _damage(raw, _place(header, rng) % len(raw), rng)
        size_bytes = sound.size_bytes + rng.choice((0, len(raw) - len(sound.data)))
        mutant = MemorySource(bytes(raw).ljust(size_bytes, b"\0"), f"mutant {number}")
        counted = Counted(mutant)
        found = read_sibling(counted, reference)
        assert counted.n_fetched <= MAX_FETCHED_BYTES
        if found is None:
            n_refused += 1
            continue
        n_taken += 1
        told, outlined = found
        assert told == parse_header(_restored(mutant, told, reference))
        assert parse_header(outlined).tensors == told.tensors
        try:
            truth = parse_header(mutant)
        except GgufError:
            n_unsound += 1
            continue
        assert told.tensors == truth.tensors
        assert told.architecture == truth.architecture
        assert vocabulary_size(told) == vocabulary_size(truth)
        assert told == truth
    assert n_taken > N_MUTATIONS // 20
    assert n_refused > N_MUTATIONS // 5
    assert n_unsound < N_MUTATIONS // 20


def _restored(mutant: MemorySource, told: Header, reference: Reference) -> MemorySource:
    """The file with the reference's records where they were said to be."""
    raw = bytearray(mutant.data)
    for key, record in reference.large_records().items():
        if key in told.key_spans:
            start, end = told.key_spans[key]
            if end - start == len(record):
                raw[start:end] = record
    return MemorySource(bytes(raw), mutant.name)
