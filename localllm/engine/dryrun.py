"""llama.cpp's own word on devices and memory, to the byte, without loading anything.

One warm child (dryrun_child.py) answers the planner's questions. A child that aborts, hangs or
is killed is a clear error, never a wrong number.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from localllm.engine.argv import (
    DRAFT_N_MAX,
    DRAFT_TYPE_KV,
    WAIT_VARIABLES,
    merged_environment,
    offloads_rest,
)
from localllm.engine.failure import explain_load_failure
from localllm.engine.hole import Holes
from localllm.engine.interpreter import module_argv
from localllm.engine.locate import find_library, find_projector_library
from localllm.errors import EngineError, LocalllmError
from localllm.gguf import MemorySource
from localllm.plan import Device, DeviceMemory, Plan
from localllm.quants import TENSOR_TYPES

#: A 45 GB header takes 0.7 s on two cores; a machine under load may take many times that.
_TIMEOUT_SECONDS = 120.0
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type
_TYPE_NUMBERS = {kind.name.lower(): number for number, kind in TENSOR_TYPES.items()}

#: CUDA's own order is by speed, and the probe's is by PCI bus.
_DEVICE_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


class DryRun:
    """The memory oracle of a machine with an engine; a context manager, for its child."""

    def __init__(self, outlines: Mapping[str, Sequence[MemorySource]] | None = None) -> None:
        """A DryRun that has asked nothing yet.

        Args:
            outlines: of models, drafts and projectors, by the path in the plan, to ask about
                instead of their files: ten times faster, and possible before there is a file.
                Where llama.cpp cannot do with one and the file is there, the file is asked.
        """
        self._child: subprocess.Popen[str] | None = None
        self._child_env: Mapping[str, str] = {}
        self._child_rpc: tuple[str, ...] = ()
        self._stderr: IO[str] | None = None
        self._outlines = dict(outlines or {})
        self._holes = Holes()
        self._dug: dict[str, str] = {}

    def __enter__(self) -> DryRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_child()
        self._holes.__exit__()

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """The places for layers beside the host, in the engine's order.

        CUDA's are numbered by PCI bus (CUDA_DEVICE_ORDER=PCI_BUS_ID): the run has to be, too.

        Args:
            rpc: endpoints ("host:port") whose devices count as well, after the machine's own.

        Raises:
            EngineError: the engine cannot be asked, or an endpoint does not answer.
        """
        answer = self._ask({"devices_behind": rpc}, rpc, _DEVICE_ORDER, "the list of devices")
        if "wrong" in answer:
            raise EngineError(answer["wrong"])
        return tuple(
            Device(
                device["name"],
                device["description"],
                # A backend that cannot tell says 0 of 0.
                device["free_bytes"] if device["total_bytes"] else None,
                device["total_bytes"] or None,
                device["device_id"],
            )
            for device in answer["devices"]
        )

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """What the plan's run will take, per device, all host buffers under "Host".

        Raises:
            EngineError, IntegrityError: llama.cpp cannot run this model, or died over it.
        """
        answer = self._answer(plan)
        rows = {
            device: DeviceMemory(
                device, model, context, compute, free_bytes=answer["free"].get(device)
            )
            for device, model, context, compute in answer["rows"]
        }
        return tuple(rows[device] for device in ("Host", *answer["free"]) if device in rows)

    def _answer(self, plan: Plan) -> dict[str, Any]:
        """The answer about the outlines, or about the files themselves where those give none."""
        try:
            return self._accepted(plan)
        except LocalllmError:
            doubtful = [path for path in _paths(plan) if path in self._outlines]
            there = [path for path in doubtful if os.path.exists(path)]
            if not there:
                raise
            kept = {path: self._outlines.pop(path) for path in there}
            try:
                return self._accepted(plan)
            except LocalllmError:
                self._outlines.update(kept)  # it was not for want of the vocabulary
                raise

    def _accepted(self, plan: Plan) -> dict[str, Any]:
        # How threads wait is nothing to a run that computes nothing: no reason for a new child.
        told = {name: value for name, value in plan.env.items() if name not in WAIT_VARIABLES}
        env = {**_DEVICE_ORDER, **told}  # as `devices` asks: one child for both
        paths = {path: self._stand_in(path) for path in _paths(plan)}
        question = _question(plan, paths)
        answer = self._ask(question, plan.rpc, env, " with ".join(paths))
        if "refused" in answer:
            path = next(path for path, asked in paths.items() if asked == answer["path"])
            raise explain_load_failure(answer["refused"], path, 1)
        if "wrong" in answer:
            sentence = answer["wrong"]
            for path, asked in paths.items():
                sentence = sentence.replace(asked, path)
            raise EngineError(sentence)
        return answer

    def _stand_in(self, path: str) -> str:
        """The file with a hole that stands for a model's, made at the first question."""
        if path not in self._outlines:
            return path
        if path not in self._dug:
            self._dug[path] = str(self._holes.dig(self._outlines[path]))
        return self._dug[path]

    def _ask(
        self,
        question: dict[str, Any],
        rpc: tuple[str, ...],
        env: Mapping[str, str],
        about: str,
    ) -> dict[str, Any]:
        """The child's answer; `about` is what an error should name."""
        child = self._child_for(rpc, env)
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
            raise EngineError(
                f"llama.cpp gave no answer about {about} in {_TIMEOUT_SECONDS:.0f} s",
                "localllm doctor --report, and attach it to a bug report",
            )
        if not line.endswith("\n"):
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is ended in any case
                child.wait(_TIMEOUT_SECONDS)
            status = child.poll() or 0
            log = self._stderr_text()
            self._end_child()
            raise explain_load_failure(log, about, status)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _child_for(self, rpc: tuple[str, ...], env: Mapping[str, str]) -> subprocess.Popen[str]:
        """The warm child, or a new one where that sees other devices than the question means.

        An endpoint once added stays, and its devices are numbered in the order of adding.
        """
        if self._child is not None and (
            env != self._child_env or self._child_rpc != rpc[: len(self._child_rpc)]
        ):
            self._end_child()
        if self._child is None:
            # A file, not a pipe: nobody reads while the child writes.
            self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
            self._child = self._start_child(self._stderr, merged_environment(env, os.environ))
            self._child_env = env
        self._child_rpc = rpc
        return self._child

    def _start_child(self, stderr: IO[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            module_argv("localllm.engine.dryrun_child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )

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
    outlines: Mapping[str, Sequence[MemorySource]] | None = None,
) -> Iterator[DryRun | None]:
    """The oracle where the engine's library can be asked, None where it cannot."""
    if find_library() is None:
        yield None
        return
    with DryRun(outlines) as oracle:
        yield oracle


def _paths(plan: Plan) -> list[str]:
    """The files of a plan's run, the model's first."""
    others = (plan.draft.path if plan.draft else None, plan.mmproj)
    return [plan.model.path, *(path for path in others if path is not None)]


def _question(plan: Plan, paths: Mapping[str, str]) -> dict[str, Any]:
    """The plan for the child; `paths` are the files to ask about instead of the plan's."""
    library = find_projector_library() if plan.mmproj else None
    return {
        "path": paths[plan.model.path],
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
        "draft": plan.draft
        and {
            "path": paths[plan.draft.path],
            "n_gpu_layers": -1 if offloads_rest(plan) else 0,
            "n_max": DRAFT_N_MAX,
            "type_k": _TYPE_NUMBERS[DRAFT_TYPE_KV],
            "type_v": _TYPE_NUMBERS[DRAFT_TYPE_KV],
        },
        "mmproj": plan.mmproj
        and {
            "path": paths[plan.mmproj],
            "library": library and str(library),
            "use_gpu": offloads_rest(plan),
        },
    }


def _readable(stream: IO[str]) -> bool:
    if sys.platform == "win32":  # select takes only sockets there
        return True
    return bool(select.select([stream], [], [], _TIMEOUT_SECONDS)[0])
