"""Permissions hold for everybody but root: what a test does here, it does as somebody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """As the user himself, or as nobody where that user is root (in most containers)."""
    if not hasattr(os, "getuid"):
        pytest.skip("permissions are POSIX's")
    if os.getuid() != 0:
        yield
        return
    try:
        os.setresuid(_NOBODY, _NOBODY, 0)  # 0 stays behind, as the way back
    except (AttributeError, PermissionError):
        pytest.skip("this root may not become anybody else")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
