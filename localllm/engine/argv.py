"""A Plan in llama.cpp's words: arguments, keywords of `llama_cpp.Llama`, the environment.

Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from localllm.plan import Plan
from localllm.units import MIB

#: ggml_type numbers of the KV cache types that llama_cpp.Llama takes (ggml.h).
_KV_TYPE_NUMBERS = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}

#: Either one says how OpenMP threads wait; a person who set one of them knows why.
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

#: What no child has a use for, as downloads are made by the hub room: tokens, and proxies, which
#: may be named with a password.
_FOR_DOWNLOADS = {
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MODELSCOPE_API_TOKEN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
}

#: What llama-server has of itself (common.h), said so that the dry run can rely on it: a draft
#: guesses so many tokens ahead, and keeps its context in this type.
DRAFT_N_MAX = 3
DRAFT_TYPE_KV = "f16"


def server_argv(plan: Plan, program: str = "llama-server") -> list[str]:
    """The command line that runs the plan, without addresses and keys.

    Every value is spelled out, so that no default of another llama.cpp can change the run, and
    `--fit off` keeps llama-server from changing what was decided.
    """
    return [
        program,
        "--model",
        plan.model.path,
        "--alias",
        plan.model.name or plan.model.ref,
        *run_argv(plan),
        *_companions_argv(plan),
        "--cache-ram",
        str(plan.cache_ram_bytes // MIB),
        "--cache-reuse",
        str(plan.cache_reuse),
        "--ctx-checkpoints",
        str(plan.n_ctx_checkpoints),
        # Connections to anywhere but this machine are for the hub room to make.
        "--offline",
    ]


def run_argv(plan: Plan) -> list[str]:
    """The arguments that decide memory and speed, in the spelling of all of llama.cpp's tools."""
    # First of all, for what comes after may name a device behind it.
    argv = ["--rpc", ",".join(plan.rpc)] if plan.rpc else []
    argv += [
        "--ctx-size",
        str(plan.n_ctx),
        "--parallel",
        str(plan.n_parallel),
        "--gpu-layers",
        str(plan.n_gpu_layers),
        "--batch-size",
        str(plan.n_batch),
        "--ubatch-size",
        str(plan.n_ubatch),
        "--threads",
        str(plan.n_threads),
        "--threads-batch",
        str(plan.n_threads_batch),
        "--cache-type-k",
        plan.type_k,
        "--cache-type-v",
        plan.type_v,
        "--flash-attn",
        plan.flash_attn,
        "--load-mode",
        plan.load_mode,
        "--fit",
        "off",
    ]
    if plan.tensor_split is not None:
        argv += ["--tensor-split", ",".join(f"{share:.9g}" for share in plan.tensor_split)]
    for override in plan.tensor_overrides:
        argv += ["--override-tensor", override]
    if plan.devices is not None:
        argv += ["--device", ",".join(plan.devices) or "none"]
    return argv


def _companions_argv(plan: Plan) -> list[str]:
    """The arguments for the models beside the model."""
    argv = []
    if plan.mmproj is not None:
        argv += ["--mmproj", plan.mmproj]
        argv += ["--mmproj-offload" if offloads_rest(plan) else "--no-mmproj-offload"]
    if plan.draft is not None:
        argv += [
            "--model-draft",
            plan.draft.path,
            # Without it the draft is loaded and not used.
            "--spec-type",
            "draft-simple",
            "--spec-draft-n-max",
            str(DRAFT_N_MAX),
            "--gpu-layers-draft",
            "all" if offloads_rest(plan) else "0",
            "--cache-type-k-draft",
            DRAFT_TYPE_KV,
            "--cache-type-v-draft",
            DRAFT_TYPE_KV,
        ]
    return argv


def offloads_rest(plan: Plan) -> bool:
    """Whether the draft and the projector go to the device, too: where layers of the model do."""
    return plan.n_gpu_layers != 0


def llama_keywords(plan: Plan) -> dict[str, Any]:
    """Keywords of `llama_cpp.Llama` for the plan.

    `Llama` has no tensor overrides and no "auto" flash attention: False there means disabled,
    which at a long context costs many times the compute memory, so auto becomes True.
    """
    return {
        "model_path": plan.model.path,
        "n_ctx": plan.n_ctx,
        "n_gpu_layers": plan.n_gpu_layers,
        "n_batch": plan.n_batch,
        "n_ubatch": plan.n_ubatch,
        "n_threads": plan.n_threads,
        "n_threads_batch": plan.n_threads_batch,
        "tensor_split": None if plan.tensor_split is None else list(plan.tensor_split),
        "flash_attn": plan.flash_attn != "off",
        "type_k": _KV_TYPE_NUMBERS.get(plan.type_k),
        "type_v": _KV_TYPE_NUMBERS.get(plan.type_v),
        "use_mmap": plan.load_mode == "mmap",
        "use_mlock": plan.load_mode == "mlock",
        "verbose": False,
    }


def child_environment(plan: Plan, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the plan's child gets; see merged_environment."""
    return merged_environment(plan.env, inherited)


def merged_environment(wanted: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The person's own environment, and what is wanted where it is silent.

    LLAMA_ARG_* are left out: they would override what was decided without a word. So are the
    secrets that downloads need.
    """
    environment = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("LLAMA_ARG_") and name.upper() not in _FOR_DOWNLOADS
    }
    waits_chosen = any(name in inherited for name in WAIT_VARIABLES)
    for name, value in wanted.items():
        if not (waits_chosen and name in WAIT_VARIABLES):
            environment.setdefault(name, value)
    # ggml calls gdb on itself when it aborts, which takes seconds and tells a user nothing.
    environment.setdefault("GGML_NO_BACKTRACE", "1")
    return environment


def printable(argv: Sequence[str]) -> str:
    """A command line that can be pasted into a shell."""
    import shlex

    return shlex.join(argv)
