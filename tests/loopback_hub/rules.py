"""When a fault is done: to which files, where, how often."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.loopback_hub.faults import Fault
from tests.loopback_hub.messages import Reply, Request, Route
from tests.loopback_hub.repositories import Stated


@dataclass
class Rule:
    """When a fault is to be done.

    Attributes:
        fault: what is done.
        file: a glob that the reply's `file` has to match.
        routes: where.
        times: how often; None for ever.
        after: how many fitting replies are right before that.
        done: how often it was done so far.
    """

    fault: Fault
    file: str
    routes: Collection[Route]
    times: int | None
    after: int
    done: int = 0

    def fits(self, route: Route, file: str) -> bool:
        return route in self.routes and fnmatchcase(file, self.file)

    def take(self) -> bool:
        """Counts a fitting reply; whether it is to be spoiled."""
        if self.after > 0:
            self.after -= 1
            return False
        if self.done == self.times:
            return False
        self.done += 1
        return True


@dataclass
class Rules:
    """All that is to go wrong; thread-safe."""

    rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: Rule) -> None:
        with self._lock:
            self.rules.append(rule)

    def clear(self) -> None:
        with self._lock:
            self.rules.clear()

    def spoil(self, request: Request, reply: Reply) -> Reply:
        """The reply with every fault that fits it, in the order in which they were asked for."""
        with self._lock:
            for rule in self.rules:
                if rule.fits(reply.route, reply.file):
                    spoiled = rule.fault.spoil(request, reply)
                    if spoiled is not None and rule.take():
                        reply = spoiled
        return reply

    def misstate(self, route: Route, stated: Stated) -> Stated:
        """What is said of a file in place of the truth."""
        with self._lock:
            for rule in self.rules:
                if rule.fits(route, stated.path):
                    wrong = rule.fault.misstate(stated)
                    if wrong is not None and rule.take():
                        stated = wrong
        return stated

    def hide(self, route: Route, path: str) -> bool:
        """Whether a file is left out of a list."""
        with self._lock:
            return any(
                rule.fault.hides() and rule.fits(route, path) and rule.take() for rule in self.rules
            )
