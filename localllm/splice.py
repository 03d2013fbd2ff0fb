"""A header read without its vocabulary, which another file of the repository has brought already.

Sibling quantizations share tokens, scores, token types and merges: 6.0 of the 6.04 MB of a header.
Around these they differ, and anywhere: names, file type, chat template, importance matrix, tensor
table. So large records are looked for as they come by, and taken from a reference. It knows
nothing of repositories, and where it is not sure it says so: then the header is to be read whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from localllm.errors import GgufError
from localllm.gguf import Array, ByteSource, Header, MemorySource, parse_header
from localllm.outline import outline
from localllm.units import KIB, MIB

#: What a sibling may cost. Its metadata and its tensor table take 20 to 150 KB.
MAX_FETCHED_BYTES = MIB
_BLOCK_BYTES = 32 * KIB
#: Smaller records are fetched. Two blocks: a record never ends in the block in which it begins.
_LARGE_BYTES = 2 * _BLOCK_BYTES
#: What is compared of a record at its beginning, in its middle and at its end.
_SAMPLE_BYTES = 4 * KIB


@dataclass(frozen=True)
class Reference:
    """A header that was read whole.

    Attributes:
        data: the file's first bytes, up to header.data_offset or beyond.
        header: the same, parsed.
    """

    data: bytes
    header: Header

    def large_records(self) -> dict[str, bytes]:
        """The tokenizer's large arrays by key, as they stand in the file.

        Of these a plan needs the length alone, and an outline leaves them out (outline.py). A chat
        template is text, and stays each file's own however large.
        """
        return {
            key: self.data[start:end]
            for key, (start, end) in self.header.key_spans.items()
            if key.startswith("tokenizer.")
            and isinstance(self.header.metadata[key], Array)
            and end - start >= _LARGE_BYTES
            and end <= len(self.data)
        }


class UnlikeError(Exception):
    """The file is not as its sibling is, or reading it as one costs too much. Not for a person."""


class SplicedSource:
    """A ByteSource of a header, for which large records are taken from a reference.

    The file is read from its beginning, in small blocks. Where the key of a large record comes by,
    the record is compared with the reference's at its beginning, in its middle and at its end, and
    the rest of it is not fetched.

    Raises (on reading):
        UnlikeError: a record differs, or the header needs more than MAX_FETCHED_BYTES.
    """

    def __init__(self, source: ByteSource, reference: Reference) -> None:
        self._source = source
        # By what they begin with, the key's length and the key.
        self._awaited = {
            record[: 8 + int.from_bytes(record[:8], "little")]: (key, record)
            for key, record in reference.large_records().items()
        }
        self._spliced: dict[str, tuple[int, int]] = {}
        self._held = bytearray()  # the file's beginning, spliced records included
        self._searched = 0  # where to look on for records
        self._n_fetched = 0

    @property
    def name(self) -> str:
        """As the file's."""
        return self._source.name

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self._source.size_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """A piece of the header."""
        end = min(offset + n_bytes, self.size_bytes)
        while len(self._held) < end and self._fetch_on():
            self._splice_all()
        return bytes(self._held[offset:end])

    def is_proven_by(self, header: Header) -> bool:
        """Whether what was parsed from it shows that every record belongs where it was put.

        Each must be the record of its own key, and the last tensor must end where the file does,
        but for padding. That it does not end beyond, parsing has shown.
        """
        end = header.table_span[1]
        if header.tensors:
            last = header.tensors[-1]
            end = header.data_offset + last.offset + last.n_bytes
        padded = -(-end // header.alignment) * header.alignment
        return self.size_bytes <= padded and all(
            header.key_spans.get(key) == span for key, span in self._spliced.items()
        )

    def _splice_all(self) -> None:
        """Splices in every record that begins in what was fetched."""
        while found := [
            (at, start)
            for start in self._awaited
            if (at := self._held.find(start, self._searched)) >= 0
        ]:
            self._splice(*min(found))
        longest = max(map(len, self._awaited), default=0)  # one may be cut in two by a block's end
        self._searched = max(self._searched, len(self._held) - longest)

    def _splice(self, at: int, start: bytes) -> None:
        key, record = self._awaited.pop(start)
        middle, last = len(record) // 2, len(record) - _SAMPLE_BYTES
        if len(self._held) < at + _SAMPLE_BYTES:
            self._fetch_on()
        begins_alike = record.startswith(self._held[at:]) and (
            record[middle : middle + _SAMPLE_BYTES] == self._fetch(at + middle, _SAMPLE_BYTES)
        )
        behind = self._fetch(at + last, _SAMPLE_BYTES + _BLOCK_BYTES) if begins_alike else b""
        if not behind.startswith(record[last:]):
            raise UnlikeError(f"{key} of {self.name} is not its sibling's")
        del self._held[at:]
        self._held += record
        self._spliced[key] = at, len(self._held)
        self._searched = len(self._held)
        self._held += behind[_SAMPLE_BYTES:]

    def _fetch_on(self) -> bool:
        """Fetches the next block; False when there is none."""
        block = self._fetch(len(self._held), _BLOCK_BYTES)
        self._held += block
        return bool(block)

    def _fetch(self, offset: int, n_bytes: int) -> bytes:
        n_bytes = max(0, min(n_bytes, self.size_bytes - offset))
        self._n_fetched += n_bytes
        if self._n_fetched > MAX_FETCHED_BYTES:
            raise UnlikeError(f"the header of {self.name} is much more than its sibling's")
        return self._source.read(offset, n_bytes) if n_bytes else b""


def read_sibling(source: ByteSource, reference: Reference) -> tuple[Header, MemorySource] | None:
    """The header of a file that shares its vocabulary with another one.

    What is wrong with a file is not told here: reading it whole tells that. A vocabulary of the
    same length that differs in a few words goes unseen; no plan depends on these. A file built to
    deceive can have a wrong plan made, which its whole header, once downloaded, gives away.

    Args:
        source: the file; some 200 KB of it are read, and never more than MAX_FETCHED_BYTES.
        reference: of any file of the same repository.

    Returns:
        The header and its outline; None when the splice is not proven: then it must be read whole.
        A header without a vocabulary, as the later files of a split set have, needs no splice and
        is read as well.

    Raises:
        LocalllmError: what the source raises when it cannot be read.
    """
    spliced = SplicedSource(source, reference)
    try:
        header = parse_header(spliced)
        return (header, outline(spliced, header)) if spliced.is_proven_by(header) else None
    except (GgufError, UnlikeError):
        return None
