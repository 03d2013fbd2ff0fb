"""Hardware presets x model shapes x goals, with llama.cpp itself as the oracle.

Real headers of real shapes (tests/shapes), placed by the real engine on devices that stand in for
those of the presets. Answers are kept, because many presets ask the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from localllm import paths
from localllm.cli.simulation import StandIns
from localllm.engine.argv import run_argv
from localllm.engine.dryrun import DryRun
from localllm.engine.locate import require_tools
from localllm.engine.loopback import loopback_devices
from localllm.errors import LocalllmError
from localllm.gguf import MemorySource, parse_header
from localllm.hardware import Hardware
from localllm.plan import Candidate, Device, DeviceMemory, MemoryOracle, Model, Plan
from localllm.presets import load_preset, preset_files
from localllm.profiles import Policy, load_policy
from localllm.weights import read_weights
from tests.shapes import SHAPES

GOALS = ("chat", "serve", "long-context")
_MOST_DEVICES = 8


@cache
def policy() -> Policy:
    """The shipped one."""
    return load_policy(paths.shipped_profiles_dir())


@cache
def presets() -> dict[str, Hardware]:
    """Every shipped machine by its name."""
    folder = paths.shipped_profiles_dir()
    return {name: load_preset(name, folder).hardware for name in preset_files(folder)}


def path_of(shape: str, quant: str) -> str:
    """What stands for a file that is nowhere."""
    return f"/nowhere/{shape}-{quant}.gguf"


@cache
def candidates(shape: str) -> tuple[Candidate, ...]:
    """All quantizations of a shape."""
    found = []
    for quant in SHAPES[shape].quants:
        source = SHAPES[shape].header(quant)
        header = parse_header(source)
        model = Model(
            ref=shape,
            path=path_of(shape, quant),
            name=SHAPES[shape].title,
            architecture=header.architecture,
            n_layers=header.n_layers,
            n_ctx_train=header.n_ctx_train,
            quant=quant,
            size_bytes=source.size_bytes,
        )
        found.append(Candidate(quant, model, read_weights([header])))
    return tuple(found)


@dataclass
class Remembering:
    """An oracle's answers, kept.

    Attributes:
        inner: the oracle.
        n_asked: questions that it was asked; n_questions: that this one was.
    """

    inner: MemoryOracle
    n_asked: int = 0
    n_questions: int = 0
    _known: dict[tuple[str, ...], tuple[DeviceMemory, ...] | LocalllmError] = field(
        default_factory=dict
    )

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        return self.inner.devices(rpc)

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        alike = replace(plan, n_threads=1, n_threads_batch=1)
        key = (plan.model.path, *run_argv(alike))
        self.n_questions += 1
        if key not in self._known:
            self.n_asked += 1
            try:
                self._known[key] = self.inner.memory(plan)
            except LocalllmError as refused:
                self._known[key] = refused
        answer = self._known[key]
        if isinstance(answer, LocalllmError):
            raise answer
        return answer


class Grid:
    """The oracle of every preset; opened once for all of them."""

    def __init__(self, remembered: Remembering, endpoints: tuple[str, ...]) -> None:
        self.remembered = remembered
        self._endpoints = endpoints

    def oracle(self, hardware: Hardware) -> StandIns:
        """llama.cpp, speaking for that machine."""
        return StandIns(self.remembered, hardware, self._endpoints[: len(hardware.accelerators)])


@contextlib.contextmanager
def open_grid(shapes: tuple[str, ...] = tuple(SHAPES)) -> Iterator[Grid]:
    """A grid over these shapes."""
    outlines: dict[str, tuple[MemorySource, ...]] = {
        path_of(shape, quant): (SHAPES[shape].header(quant),)
        for shape in shapes
        for quant in SHAPES[shape].quants
    }
    with (
        loopback_devices(require_tools("ggml-rpc-server"), _MOST_DEVICES) as endpoints,
        DryRun(outlines) as oracle,
    ):
        yield Grid(Remembering(oracle), endpoints)
