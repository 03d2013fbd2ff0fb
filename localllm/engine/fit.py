"""llama.cpp's own word on memory: llama-fit-params, which dry-runs a model without loading it.

It answers for a file on this disk, in whole MiB. (Exact bytes, headers without weights and many
questions at once are the exact planner's business, behind the same MemoryOracle.)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

from localllm.engine.argv import child_environment, run_argv
from localllm.engine.failure import explain_load_failure
from localllm.engine.locate import FIT_PARAMS, Tools
from localllm.errors import EngineError
from localllm.plan import DeviceMemory, Fit, Plan
from localllm.units import MIB

#: A 45 GB header takes 0.7 s on two cores; a machine under load may take many times that.
_TIMEOUT_SECONDS = 120

# RPC0 197 144 298
# Host 83 240 40
_ROW = re.compile(
    r"^(?P<device>\S+) (?P<model>\d+) (?P<context>\d+) (?P<compute>\d+)\s*$", re.MULTILINE
)

# Available devices:
#   RPC0: 127.0.0.1:50991 (24105 MiB, 24105 MiB free)
_DEVICE = re.compile(r"^\s+(?P<device>\S+): .*\(\d+ MiB, (?P<free>\d+) MiB free\)", re.MULTILINE)

# -c 8192 -ngl 21 -ts 11,10 -ot "blk\.2\.ffn_(up|gate|down).*=CPU,…"
_FITTED = re.compile(
    r"^-c (?P<n_ctx>\d+) -ngl (?P<n_gpu_layers>-?\d+)"
    r'(?: -ts (?P<split>[\d.,]+))?(?: -ot "(?P<overrides>[^"]*)")?\s*$',
    re.MULTILINE,
)


class FitParams:
    """The memory oracle of a machine with llama.cpp's tools."""

    def __init__(self, tools: Tools) -> None:
        self._program = str(tools.path(FIT_PARAMS))

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """What the plan's run will take, per device, all host buffers under "Host".

        Raises:
            EngineError: llama.cpp cannot run this model, or died over it.
        """
        rows = parse_memory(self._run(plan, [*run_argv(plan), "--fit-print", "on"]))
        if not rows:
            raise EngineError(
                f"{FIT_PARAMS} gave no memory table for {plan.model.path}",
                "localllm doctor --report, and attach it to a bug report",
            )
        free = self._free(plan) if len(rows) > 1 else {}
        return tuple(
            replace(row, free_bytes=free.get(row.device))
            for row in with_all_weights(rows, plan.model.tensor_bytes)
        )

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        """How many layers and what split llama.cpp would choose at the plan's context.

        Args:
            plan: its n_gpu_layers, tensor_split and tensor_overrides are not looked at.
            reserve_bytes: to be left free on every device.
        """
        open_plan = replace(plan, tensor_split=None, tensor_overrides=())
        argv = run_argv(open_plan)
        for named, count in (("--gpu-layers", 2), ("--fit", 2)):
            at = argv.index(named)
            del argv[at : at + count]
        margin = ["--fit-target", str(reserve_bytes // MIB), "--fit-ctx", str(plan.n_ctx)]
        output = self._run(plan, [*argv, *margin])
        return parse_fitted(output)

    def _free(self, plan: Plan) -> dict[str, int]:
        """What is free on each device, as the engine itself sees it."""
        listing = ["--list-devices", *(["--rpc", ",".join(plan.rpc)] if plan.rpc else [])]
        return parse_devices(self._call(plan, [self._program, *listing]))

    def _run(self, plan: Plan, argv: list[str]) -> str:
        return self._call(plan, [self._program, "--model", plan.model.path, *argv, "--offline"])

    def _call(self, plan: Plan, command: list[str]) -> str:
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
            raise EngineError(
                f"{FIT_PARAMS} gave no answer for {plan.model.path} in {_TIMEOUT_SECONDS} s"
            ) from None
        except OSError as exc:
            raise EngineError(f"cannot start {self._program}: {exc.strerror}") from exc
        output = (done.stderr + done.stdout).decode("utf-8", "replace")
        if done.returncode != 0:
            raise explain_load_failure(
                _refusal(plan.model.path) + output, plan.model.path, done.returncode
            )
        return output


def _refusal(path: str) -> str:
    """llama.cpp's log of trying to read this model; empty where the library cannot be asked."""
    command = [sys.executable, "-m", "localllm.engine.refusal", path]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return ""
    return done.stderr.decode("utf-8", "replace")


def parse_memory(text: str) -> tuple[DeviceMemory, ...]:
    """The table that `--fit-print on` prints, the host first."""
    rows = [
        DeviceMemory(
            device=match["device"],
            model_bytes=int(match["model"]) * MIB,
            context_bytes=int(match["context"]) * MIB,
            compute_bytes=int(match["compute"]) * MIB,
        )
        for match in _ROW.finditer(text)
    ]
    return tuple(sorted(rows, key=lambda row: row.device != "Host"))


def with_all_weights(rows: tuple[DeviceMemory, ...], tensor_bytes: int) -> tuple[DeviceMemory, ...]:
    """The rows with repacked host weights counted.

    The table leaves out weights that the CPU backend repacks into a buffer type of its own
    (CPU_REPACK). Only the debug log shows them, and that log loses its last lines at exit. But
    every weight is somewhere: what is on no device is on the host.
    """
    elsewhere = sum(row.model_bytes for row in rows if row.device != "Host")
    return tuple(
        replace(row, model_bytes=max(row.model_bytes, tensor_bytes - elsewhere))
        if row.device == "Host"
        else row
        for row in rows
    )


def parse_devices(text: str) -> dict[str, int]:
    """Free bytes per device, from `--list-devices`."""
    return {match["device"]: int(match["free"]) * MIB for match in _DEVICE.finditer(text)}


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
