"""Which replica has seen the beginning of a prompt, and so need not compute it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

_MOST_KEPT = 16384


class Affinity:
    """The replicas of the prefixes that were answered last; bounded in number."""

    def __init__(self) -> None:
        self._replica_of: OrderedDict[bytes, str] = OrderedDict()

    def find(self, prefix: Sequence[bytes], among: Container[str]) -> str | None:
        """The replica, among these, that has seen most of the prefix; None where none has."""
        for digest in reversed(prefix):
            name = self._replica_of.get(digest)
            if name is not None and name in among:
                return name
        return None

    def remember(self, prefix: Sequence[bytes], name: str) -> None:
        """The replica has been given this prompt."""
        for digest in prefix:
            self._replica_of[digest] = name
            self._replica_of.move_to_end(digest)
        while len(self._replica_of) > _MOST_KEPT:
            self._replica_of.popitem(last=False)

    def forget(self, name: str) -> None:
        """The replica was started anew: its caches are empty."""
        for digest in [digest for digest, of in self._replica_of.items() if of == name]:
            del self._replica_of[digest]
