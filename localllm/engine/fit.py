"""llama.cpp's own word on memory: llama-fit-params, which dry-runs a model without loading it.

It answers for a file on this disk, in whole MiB. (Exact bytes, headers without weights and many
questions at once are the exact planner's business, behind the same MemoryOracle.)
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace

from localllm.engine.argv import child_environment, run_argv
from localllm.engine.failure import explain_load_failure
from localllm.engine.locate import FIT_PARAMS, Tools
from localllm.errors import EngineError
from localllm.plan import DeviceMemory, Fit, Plan
from localllm.units import MIB

#: A 45 GB header takes 0.7 s on two cores; a machine under load may take many times that.
_TIMEOUT_SECONDS = 120

# | memory breakdown [MiB]     | total    free    self   model   context   compute    unaccounted |
# |   - RPC0 (127.0.0.1:50991) | 24105 = 24105 + ( 640 =   197 +     144 +     298) +        -640 |
# |   - Host                   |                   363 =    83 +     240 +      40                |
# |   - CPU_REPACK             |                   126 =   126 +       0 +       0                |
_ROW = re.compile(
    r"\|\s+- (?P<device>\S+)[^|]*\|"
    r"(?:\s*(?P<total>\d+) =\s*(?P<free>\d+) \+ \()?"
    r"\s*\d+ =\s*(?P<model>\d+) \+\s*(?P<context>\d+) \+\s*(?P<compute>\d+)\)?"
)

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
        output = self._run(plan, [*run_argv(plan), "--fit-print", "on", "--verbose"])
        rows = parse_breakdown(output)
        if not rows:
            raise EngineError(
                f"{FIT_PARAMS} gave no memory table for {plan.model.path}",
                "localllm doctor --report, and attach it to a bug report",
            )
        return rows

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

    def _run(self, plan: Plan, argv: list[str]) -> str:
        command = [self._program, "--model", plan.model.path, *argv, "--offline"]
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
            raise explain_load_failure(output, plan.model.path, done.returncode)
        return output


def parse_breakdown(text: str) -> tuple[DeviceMemory, ...]:
    """The rows of llama.cpp's memory table; repacked host weights are added to "Host"."""
    rows: dict[str, DeviceMemory] = {}
    for match in _ROW.finditer(text):
        is_device = match["free"] is not None
        name = match["device"] if is_device else "Host"
        row = DeviceMemory(
            device=name,
            model_bytes=int(match["model"]) * MIB,
            context_bytes=int(match["context"]) * MIB,
            compute_bytes=int(match["compute"]) * MIB,
            free_bytes=int(match["free"]) * MIB if is_device else None,
        )
        if name in rows:
            old = rows[name]
            row = replace(
                old,
                model_bytes=old.model_bytes + row.model_bytes,
                context_bytes=old.context_bytes + row.context_bytes,
                compute_bytes=old.compute_bytes + row.compute_bytes,
            )
        rows[name] = row
    return tuple(sorted(rows.values(), key=lambda row: row.device != "Host"))


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
