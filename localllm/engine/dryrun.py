"""llama.cpp's own word on memory, to the byte, without loading anything.

One warm child (dryrun_child.py) answers the planner's questions; where layers should go,
llama-fit-params decides, or a search where only the library is installed. A child that aborts,
hangs or is killed is a clear error, never a wrong number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

from localllm.engine.argv import child_environment, run_argv
from localllm.engine.failure import explain_load_failure
from localllm.engine.hole import Holes
from localllm.engine.locate import FIT_PARAMS, Tools, find_library
from localllm.errors import EngineError, LocalllmError
from localllm.gguf import MemorySource
from localllm.plan import DeviceMemory, Fit, Plan
from localllm.quants import TENSOR_TYPES
from localllm.units import MIB

#: A 45 GB header takes 0.7 s on two cores; a machine under load may take many times that.
_TIMEOUT_SECONDS = 120.0
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type
_TYPE_NUMBERS = {kind.name.lower(): number for number, kind in TENSOR_TYPES.items()}

# -c 8192 -ngl 21 -ts 11,10 -ot "blk\.2\.ffn_(up|gate|down).*=CPU,…"
_FITTED = re.compile(
    r"^-c (?P<n_ctx>\d+) -ngl (?P<n_gpu_layers>-?\d+)"
    r'(?: -ts (?P<split>[\d.,]+))?(?: -ot "(?P<overrides>[^"]*)")?\s*$',
    re.MULTILINE,
)


class DryRun:
    """The memory oracle of a machine with an engine; a context manager, for its child."""

    def __init__(
        self, tools: Tools | None, outlines: Mapping[str, Sequence[MemorySource]] | None = None
    ) -> None:
        """A DryRun that has asked nothing yet.

        Args:
            tools: where llama-fit-params is; None where only the library is installed.
            outlines: of models, by `Model.path`, to ask about instead of their files: ten times
                faster, and possible before there is a file. Where llama.cpp cannot do with one
                and the file is there, the file is asked.
        """
        has_tool = tools is not None and FIT_PARAMS in tools.names
        self._fit_params = str(tools.path(FIT_PARAMS)) if tools and has_tool else None
        self._child: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None
        self._outlines = dict(outlines or {})
        self._holes = Holes()
        self._dug: dict[str, str] = {}

    def __enter__(self) -> DryRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_child()
        self._holes.__exit__()

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """What the plan's run will take, per device, all host buffers under "Host".

        Raises:
            EngineError, IntegrityError: llama.cpp cannot run this model, or died over it.
        """
        answer = self._answer(plan)
        rows = [
            DeviceMemory(device, model, context, compute, free_bytes=answer["free"].get(device))
            for device, model, context, compute in answer["rows"]
        ]
        return tuple(sorted(rows, key=lambda row: row.device != "Host"))

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        """How many layers and what split llama.cpp would choose at the plan's context.

        Args:
            plan: its n_gpu_layers, tensor_split and tensor_overrides are not looked at.
            reserve_bytes: to be left free on every device.
        """
        if self._fit_params is None:
            return self._most_layers(plan, reserve_bytes)
        argv = run_argv(replace(plan, tensor_split=None, tensor_overrides=()))
        for left_open in ("--gpu-layers", "--fit"):
            at = argv.index(left_open)
            del argv[at : at + 2]
        margin = ["--fit-target", str(reserve_bytes // MIB), "--fit-ctx", str(plan.n_ctx)]
        path = self._stand_in(plan) or plan.model.path
        command = [self._fit_params, "--model", path, *argv, *margin, "--offline"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                env=child_environment(plan, os.environ),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _no_answer(plan) from None
        except OSError as exc:
            raise EngineError(f"cannot start {self._fit_params}: {exc.strerror}") from exc
        if done.returncode != 0:
            self.memory(plan)  # which says why, in order: this tool loses its last log lines
            if path != (self._stand_in(plan) or plan.model.path):
                return self.fit(plan, reserve_bytes)  # the outline would not do; the file may
            log = (done.stderr + done.stdout).decode("utf-8", "replace")
            raise explain_load_failure(log, plan.model.path, done.returncode)
        return parse_fitted(done.stdout.decode("utf-8", "replace"))

    def _most_layers(self, plan: Plan, reserve_bytes: int) -> Fit:
        """The largest number of layers that leaves the reserve free, by halving."""

        def fits(n_layers: int) -> bool:
            rows = self.memory(
                replace(plan, n_gpu_layers=n_layers, tensor_split=None, tensor_overrides=())
            )
            return all(
                row.total_bytes + reserve_bytes <= row.free_bytes
                for row in rows
                if row.free_bytes is not None
            )

        low, high = 0, (plan.model.n_layers or 0) + 2  # fits at low, not at high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return Fit(plan.n_ctx, low)

    def _answer(self, plan: Plan) -> dict[str, Any]:
        """The answer about the outline, or about the file itself where that gives none."""
        stand_in = self._stand_in(plan)
        if stand_in is None:
            return self._accepted(plan, plan.model.path)
        try:
            return self._accepted(plan, stand_in)
        except LocalllmError:
            if not os.path.exists(plan.model.path):
                raise
            del self._outlines[plan.model.path]  # it would fail again
            return self._accepted(plan, plan.model.path)

    def _accepted(self, plan: Plan, path: str) -> dict[str, Any]:
        answer = self._ask(_question(plan, path), plan)
        if "refused" in answer:
            raise explain_load_failure(answer["refused"], plan.model.path, 1)
        return answer

    def _stand_in(self, plan: Plan) -> str | None:
        """The file with a hole that stands for the plan's model, made at the first question."""
        path = plan.model.path
        if path not in self._outlines:
            return None
        if path not in self._dug:
            self._dug[path] = str(self._holes.dig(self._outlines[path]))
        return self._dug[path]

    def _ask(self, question: dict[str, Any], plan: Plan) -> dict[str, Any]:
        child = self._child or self._start_child(plan)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(question) + "\n")
            child.stdin.flush()
            ready = _readable(child.stdout)
            line = child.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = True, ""
        if not ready:
            self._end_child()
            raise _no_answer(plan)
        if not line:
            status = child.wait()
            log = self._stderr_text()
            self._end_child()
            raise explain_load_failure(log, plan.model.path, status)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start_child(self, plan: Plan) -> subprocess.Popen[str]:
        # A file, not a pipe: nobody reads while the child writes.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-m", "localllm.engine.dryrun_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=child_environment(plan, os.environ),
        )
        return self._child

    def _stderr_text(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read()[-20_000:]

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()  # it holds nothing that a signal could damage
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


@contextlib.contextmanager
def dry_run(
    tools: Tools | None, outlines: Mapping[str, Sequence[MemorySource]] | None = None
) -> Iterator[DryRun | None]:
    """The oracle where the engine's library can be asked, None where it cannot."""
    if find_library() is None:
        yield None
        return
    with DryRun(tools, outlines) as oracle:
        yield oracle


def parse_fitted(text: str) -> Fit:
    """The arguments that llama-fit-params printed."""
    match = _FITTED.search(text)
    if match is None:
        raise EngineError(f"{FIT_PARAMS} printed no arguments")
    return Fit(
        n_ctx=int(match["n_ctx"]),
        n_gpu_layers=int(match["n_gpu_layers"]),
        tensor_split=tuple(float(x) for x in match["split"].split(",")) if match["split"] else None,
        tensor_overrides=tuple(match["overrides"].split(",")) if match["overrides"] else (),
    )


def _question(plan: Plan, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "n_ctx": plan.n_ctx,
        "n_parallel": plan.n_parallel,
        "n_gpu_layers": plan.n_gpu_layers,
        "n_batch": plan.n_batch,
        "n_ubatch": plan.n_ubatch,
        "type_k": _TYPE_NUMBERS[plan.type_k],
        "type_v": _TYPE_NUMBERS[plan.type_v],
        "flash_attn": _FLASH_ATTN[plan.flash_attn],
        "tensor_split": plan.tensor_split,
        "overrides": plan.tensor_overrides,
        "devices": plan.devices,
        "rpc": plan.rpc,
    }


def _readable(stream: IO[str]) -> bool:
    if sys.platform == "win32":  # select takes only sockets there
        return True
    return bool(select.select([stream], [], [], _TIMEOUT_SECONDS)[0])


def _no_answer(plan: Plan) -> EngineError:
    return EngineError(
        f"llama.cpp gave no answer about {plan.model.path} in {_TIMEOUT_SECONDS:.0f} s",
        "localllm doctor --report, and attach it to a bug report",
    )
