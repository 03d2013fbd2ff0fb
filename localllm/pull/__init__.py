"""Pulling a model: its files found here, taken over from another program, or downloaded; proven.

Puts the hub's room and the store's together. Knows nothing of terminals: what goes on is told
through a function that it is handed.

    order.py    what is to be pulled, and what came of it
    errand.py   one order on its way, file by file
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from localllm.errors import IntegrityError, UsageError
from localllm.pull.errand import Errand
from localllm.pull.order import Order, Pulled, Step, model_path
from localllm.store import Store

__all__ = ["Order", "Pulled", "Step", "missing_bytes", "model_path", "pull"]


def pull(order: Order, store: Store, on_step: Callable[[Step], None] = lambda _: None) -> Pulled:
    """Brings every file of the order here.

    For each: 1. what a manifest vouches for; 2. what lies in the cache, after hashing it; 3. what
    another program on this machine has, likewise, by a link; 4. the download. Locks are held until
    the manifest stands, so that others who want the same wait for it.

    Raises:
        DiskError: no room. IntegrityError: not what it claims to be. NetworkError, AccessError,
        NotFoundError: not to be had. What was downloaded so far stays.
    """
    if order.variant.unusable:
        raise IntegrityError(f"{order.variant.label} cannot be run: {order.variant.unusable}")
    if order.claims and len(order.variant.files) > 1:
        raise UsageError(
            f"{order.variant.label} is {len(order.variant.files)} files, and a digest is of one",
            "leave out --sha256 and --md5: the parts are checked as the hub lists them",
        )
    _check_claims(order)
    errand = Errand(order, store, on_step)
    with contextlib.ExitStack() as locks:
        errand.check_room()
        stored, how = [], []
        for file, role in order.files:
            found, origin = errand.obtain(locks, file, role)
            stored.append(found)
            how.append(origin)
        return errand.finish(stored, how)


def missing_bytes(order: Order, store: Store) -> int:
    """How much of an order would have to be downloaded, as far as names and sizes tell."""
    return Errand(order, store).missing_bytes


def _check_claims(order: Order) -> None:
    """That the person and the listing mean the same file, before any of it is downloaded.

    Raises:
        IntegrityError: they do not.
    """
    file, listing = order.variant.files[0], order.listing
    for claim in order.claims:
        if claim.algorithm == "sha256" and file.sha256 not in (None, claim.hex):
            raise IntegrityError(
                f"{claim.by} wants {file.path} to have the sha256 {claim.hex}, and"
                f" {listing.authority} lists it with {file.sha256}",
                "nothing was downloaded; is it the right file and revision?",
            )
