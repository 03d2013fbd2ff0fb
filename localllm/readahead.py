"""Reading ahead in a file that is far away: few reads, each byte fetched once, all of it kept.

For headers read from their beginning to their end. Where the bytes come from is the source's to
know, and what they mean the parser's (gguf.py).
"""

from __future__ import annotations

from localllm.gguf import MAX_HEADER_BYTES, ByteSource
from localllm.units import KIB, MIB


class ReadAhead:
    """A ByteSource that fetches another one's beginning in growing blocks, and keeps it.

    A header may take 20 KB (no vocabulary) or 16 MB: small first blocks for the one, and for the
    other few round trips (six megabytes take nine). It holds, and shows, a file's first
    MAX_HEADER_BYTES at most.

    Args:
        source: the file.
        first_bytes: of the first block.
        max_bytes: of a block; each is twice the one before it, up to this.
    """

    def __init__(
        self, source: ByteSource, first_bytes: int = 128 * KIB, max_bytes: int = MIB
    ) -> None:
        self._source = source
        self._block_bytes = first_bytes
        self._max_block_bytes = max_bytes
        self._held = bytearray()

    @property
    def name(self) -> str:
        """As the source's."""
        return self._source.name

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self._source.size_bytes

    @property
    def fetched(self) -> bytes:
        """The file's beginning, as far as it was fetched."""
        return bytes(self._held)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """A piece of what is held, after fetching what lacks of it."""
        limit = min(self.size_bytes, MAX_HEADER_BYTES)
        while len(self._held) < min(offset + n_bytes, limit):
            at = len(self._held)
            block = self._source.read(at, min(self._block_bytes, limit - at))
            if not block:
                break  # shorter than it said: whoever parses will say so
            self._held += block
            self._block_bytes = min(2 * self._block_bytes, self._max_block_bytes)
        return bytes(self._held[offset : offset + n_bytes])
