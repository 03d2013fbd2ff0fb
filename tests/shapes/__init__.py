"""Well-known models as GGUF headers without weights, for trying a planner on."""

from __future__ import annotations

from tests.shapes.models import SHAPES
from tests.shapes.shape import Shape

__all__ = ["SHAPES", "Shape"]
