"""Reading ahead: each byte of a header is fetched once, in few blocks, within a bound."""

from __future__ import annotations

import itertools

import pytest

from localllm.errors import GgufError, NetworkError
from localllm.gguf import MAX_HEADER_BYTES, MemorySource, parse_header
from localllm.outline import outline
from localllm.readahead import ReadAhead
from localllm.units import GIB, KIB, MIB
from tests.ggufs import Llama, header_bytes


class Far:
    """A file without end of which every byte tells where it is; its reads are written down."""

    name = "far"

    def __init__(self, size_bytes: int = 10 * GIB) -> None:
        self.size_bytes = size_bytes
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, n_bytes: int) -> bytes:
        assert 0 < n_bytes <= self.size_bytes - offset, "asks for bytes that the file has not"
        self.reads.append((offset, n_bytes))
        return bytes(_NUMBERS[offset % 251 : offset % 251 + n_bytes])


_NUMBERS = memoryview(bytes(range(251)) * (MIB // 251 + 2))


def test_blocks_double_from_the_first_to_the_largest() -> None:
    far = Far()
    ahead = ReadAhead(far)
    for offset in range(0, 4 * MIB, 32 * KIB):
        assert len(ahead.read(offset, 32 * KIB)) == 32 * KIB
    sizes = [n_bytes for _, n_bytes in far.reads]
    assert sizes == [128 * KIB, 256 * KIB, 512 * KIB, MIB, MIB, MIB, MIB]


@pytest.mark.parametrize(
    ("first_bytes", "max_bytes"), [(1, 7), (100, 100), (128 * KIB, MIB)], ids=str
)
def test_every_byte_is_fetched_once_whatever_is_read(first_bytes: int, max_bytes: int) -> None:
    far = Far(3000)
    ahead = ReadAhead(far, first_bytes, max_bytes)
    for offset, n_bytes in ((0, 4), (4, 100), (50, 10), (2000, 30), (0, 2000), (2990, 100)):
        expected = bytes(number % 251 for number in range(offset, min(offset + n_bytes, 3000)))
        assert ahead.read(offset, n_bytes) == expected
    ends = [offset + n_bytes for offset, n_bytes in far.reads]
    assert [offset for offset, _ in far.reads] == [0, *ends[:-1]]
    assert ends[-1] == 3000


def test_what_was_fetched_can_be_had_as_one() -> None:
    ahead = ReadAhead(Far(), first_bytes=100, max_bytes=100)
    assert ahead.fetched == b""
    ahead.read(30, 100)
    assert ahead.fetched == bytes(range(200))


def test_a_read_beyond_the_file_ends_with_it() -> None:
    far = Far(1000)
    ahead = ReadAhead(far)
    assert len(ahead.read(990, 100)) == 10
    assert ahead.read(1000, 10) == b""
    assert ahead.read(5000, 10) == b""
    assert far.reads == [(0, 1000)]


def test_no_more_is_held_than_a_header_may_take() -> None:
    far = Far()
    ahead = ReadAhead(far)
    assert len(ahead.read(MAX_HEADER_BYTES - 10, 100)) == 10
    assert ahead.read(GIB, 100) == b""
    assert sum(n_bytes for _, n_bytes in far.reads) == len(ahead.fetched) == MAX_HEADER_BYTES


def test_a_file_that_is_shorter_than_it_said_is_told_as_that() -> None:
    raw = header_bytes(Llama().metadata(), Llama().tensors())
    cut = ReadAhead(MemorySource(raw[:2000], "cut", len(raw) + MIB), first_bytes=512)
    with pytest.raises(GgufError, match="cut is not a sound GGUF file: it ends in the middle"):
        parse_header(cut)


def test_what_failed_can_be_read_again() -> None:
    class Failing(Far):
        fails = True

        def read(self, offset: int, n_bytes: int) -> bytes:
            if offset == 200 and self.fails:
                raise NetworkError("the connection was reset")
            return super().read(offset, n_bytes)

    failing = Failing(1000)
    ahead = ReadAhead(failing, first_bytes=100, max_bytes=100)
    with pytest.raises(NetworkError, match="was reset"):
        ahead.read(0, 1000)
    failing.fails = False
    assert ahead.read(0, 1000) == bytes(number % 251 for number in range(1000))
    assert failing.reads == [(offset, 100) for offset in range(0, 1000, 100)]


@pytest.mark.parametrize("n_vocab", [320, 151_936])
def test_a_header_is_parsed_and_outlined_from_what_is_held(n_vocab: int) -> None:
    shape = Llama(n_vocab=n_vocab)
    raw = header_bytes(shape.metadata(), shape.tensors())
    whole = MemorySource(raw, "it", len(raw) + sum(spec.n_bytes for spec in shape.tensors()))
    reads: list[tuple[int, int]] = []

    class Counted(Far):
        name = whole.name

        def read(self, offset: int, n_bytes: int) -> bytes:
            reads.append((offset, n_bytes))
            return whole.read(offset, n_bytes) + bytes(max(0, offset + n_bytes - len(raw)))

    ahead = ReadAhead(Counted(whole.size_bytes))
    header = parse_header(ahead)
    n_reads = len(reads)
    assert header == parse_header(whole)
    assert outline(ahead, header) == outline(whole, header)
    assert ahead.fetched[: header.data_offset] == raw
    assert len(reads) == n_reads, "an outline needs nothing but the header"
    assert n_reads <= 3 + len(raw) // MIB
    assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(reads))
