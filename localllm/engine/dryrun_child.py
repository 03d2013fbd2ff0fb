"""Dry-runs models in a process of its own: one JSON question a line in, one answer a line out.

Run as `python -m localllm.engine.dryrun_child`. llama.cpp builds the real graphs on dummy buffers
(`no_alloc`) and says what it would have allocated, to the byte; it may also abort over a model
that it does not like, which is why this is not done in localllm's own process.

About a run: {"path", "n_ctx", "n_parallel", "n_gpu_layers", "n_batch", "n_ubatch", "type_k",
"type_v" (ggml_type numbers), "flash_attn" (-1 auto, 0 off, 1 on), "tensor_split", "overrides",
"devices", "rpc", "draft" (null or {"path", "n_gpu_layers", "n_max", "type_k", "type_v"}), "mmproj"
(null or {"path", "library", "use_gpu"})} -> {"rows": [[device, model, context, compute], …],
"free": {device: bytes}}, or {"refused": llama.cpp's log, "path": of which file}, or {"wrong": a
sentence}.
About devices: {"devices_behind": [RPC endpoint, …]} -> {"devices": [{"name", "description",
"free_bytes", "total_bytes", "device_id"}, …]}, or "wrong".
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from localllm.engine import dryrun_ggml as ggml
from localllm.engine.bounds import bound_memory
from localllm.engine.dryrun_ggml import Map, WrongError, llama_cpp

# A dry run reports the first of the compute buffers' three plans, made for all slots; for these
# architectures the last plan is made for a single one and takes more (llama-context.cpp,
# TAG_RESERVE_DIAG_DECAY: it grows with the square of a slot's share of the micro-batch).
_LAST_PLANNED_FOR_ONE_SLOT = ("kimi-linear", "minimax-01")

# What these need of the model they draft for is llama-server's to know (its MTP, EAGLE-3 and
# DFlash), and their memory is not a plain draft's.
_HEADS = ("eagle3", "dflash", "gemma4-assistant")

#: Bytes of model, context and compute.
_Sizes = tuple[int, int, int]


class _MtmdParams(ctypes.Structure):
    """mtmd_context_params (mtmd.h)."""

    _fields_ = [
        ("use_gpu", ctypes.c_bool),
        ("device", ctypes.c_void_p),
        ("print_timings", ctypes.c_bool),
        ("n_threads", ctypes.c_int),
        ("image_marker", ctypes.c_char_p),
        ("media_marker", ctypes.c_char_p),
        ("flash_attn_type", ctypes.c_int),
        ("warmup", ctypes.c_bool),
        ("image_min_tokens", ctypes.c_int),
        ("image_max_tokens", ctypes.c_int),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("batch_max_tokens", ctypes.c_int32),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
    ]


class _RefusedError(Exception):
    """llama.cpp will not have the file of this path; its log says why."""


@dataclass(frozen=True)
class _Model:
    """A loaded model, what was asked about it, and what its parameters pointed to."""

    handle: Any
    about: dict[str, Any]
    held: list[Any]


class DryRunner:
    """Answers questions; keeps the last models."""

    def __init__(self) -> None:
        self._log: list[str] = []

        def keep(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
            self._log.append(text.decode("utf-8", "replace"))
            del self._log[:-200]

        self._keep_log = llama_cpp.llama_log_callback(keep)  # ctypes does not hold on to it
        llama_cpp.llama_log_set(self._keep_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._breakdown = ggml.lib["_Z26llama_get_memory_breakdownPK13llama_context"]
        self._breakdown.restype, self._breakdown.argtypes = Map, [ctypes.c_void_p]
        self._models: dict[str, _Model] = {}
        self._projectors: dict[str, dict[str, _Sizes]] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to either kind of question."""
        self._log.clear()
        try:
            if "devices_behind" in question:
                ggml.add_rpc(question["devices_behind"])
                return {"devices": [ggml.describe(device) for device in ggml.places()]}
            ggml.add_rpc(question["rpc"])
            rows = [(device, *size) for device, size in self._about_run(question).items()]
        except WrongError as exc:
            return {"wrong": str(exc)}
        except _RefusedError as exc:
            return {"refused": "".join(self._log), "path": str(exc)}
        return {"rows": rows, "free": ggml.free_bytes()}

    def _about_run(self, question: dict[str, Any]) -> dict[str, _Sizes]:
        """What this run would take, by device."""
        draft, mmproj, n_slots = question["draft"], question["mmproj"], question["n_parallel"]
        model = self._loaded("model", question)
        self._check_split(model, question["tensor_split"])
        # As llama-server does (server-context.cpp): an output a slot, and one a drafted token. The
        # default is one a token of the batch, which makes the logits' buffer many times larger.
        n_outputs = 1 + (draft["n_max"] if draft else 0)
        params = self._context_params(question)
        params.n_outputs_max = min(question["n_batch"], n_slots * n_outputs)
        params.n_outputs_max_per_seq = min(question["n_batch"], n_outputs)
        beside: dict[str, _Sizes] = {}
        with self._context(model, params) as context:
            sizes = self._sizes(context)
            if draft:
                beside = self._draft_sizes(question, draft, context)
        if n_slots > 1 and self._architecture(model) in _LAST_PLANNED_FOR_ONE_SLOT:
            # A slot's context, but no smaller than a micro-batch, which would shrink with it.
            params.n_ctx = max(question["n_ctx"] // n_slots, question["n_ubatch"])
            params.n_seq_max = 1
            params.n_outputs_max = params.n_outputs_max_per_seq
            with self._context(model, params) as context:
                one = self._sizes(context)
            sizes = {
                device: (size[0], size[1], max(size[2], one.get(device, size)[2]))
                for device, size in sizes.items()
            }
        if mmproj:
            beside = _sum(beside, self._projector_sizes(question, mmproj))
        return _sum(sizes, beside)

    def _draft_sizes(
        self, question: dict[str, Any], draft: dict[str, Any], target: Any
    ) -> dict[str, _Sizes]:
        """What the draft model takes; `target` is the context that it drafts for.

        As llama-server does (common_base_params_to_speculative): devices and split are the
        model's, overrides are not, and the context is as long as the model's.
        """
        model = self._loaded("draft", {**question, **draft, "overrides": []})
        if self._architecture(model) in _HEADS:
            raise WrongError(f"{draft['path']} is no draft model of its own, but a part of one")
        params = self._context_params({**question, **draft})
        params.n_ctx = llama_cpp.llama_n_ctx(target)
        params.n_outputs_max = question["n_parallel"]
        params.n_outputs_max_per_seq = 1
        params.ctx_other = target
        with self._context(model, params) as context:
            return self._sizes(context)

    def _projector_sizes(
        self, question: dict[str, Any], mmproj: dict[str, Any]
    ) -> dict[str, _Sizes]:
        """What the projector takes: its weights, and its buffers for one picture.

        Of a size that it chooses for its warm-up, which for those that take any size is smaller
        than their largest. Really allocated for the moment, but nothing is read.
        """
        devices = question["devices"]
        # As llama-server does (arg.cpp): on the first of --device, or of all that there are.
        use_gpu = mmproj["use_gpu"] and devices != []
        device = devices[0] if use_gpu and devices else None
        about = [mmproj["path"], use_gpu, device, question["rpc"], question["flash_attn"]]
        key = json.dumps(about)
        if key not in self._projectors:
            mtmd = self._mtmd(mmproj["library"])
            default = mtmd.mtmd_context_params_default
            default.restype, default.argtypes = _MtmdParams, []
            usage = mtmd["_Z21mtmd_get_memory_usagePKc19mtmd_context_params"]
            usage.restype, usage.argtypes = Map, [ctypes.c_char_p, _MtmdParams]
            params = default()
            params.use_gpu = use_gpu
            if device is not None:
                params.device = ggml.device_named(device)
            params.flash_attn_type = question["flash_attn"]
            found = []
            for warmup in (False, True):
                params.warmup = warmup
                returned = usage(mmproj["path"].encode(), params)
                sizes: dict[str, int] = {}
                for where, size in ggml.entries(returned, 1):
                    name = ggml.place_name(where)
                    sizes[name] = sizes.get(name, 0) + size
                if not sizes:
                    raise WrongError(
                        f"llama.cpp cannot make a projector of {mmproj['path']}: it is damaged, or"
                        " made for another llama.cpp, or there is no room for it"
                    )
                found.append(sizes)
            weights, all_of_it = found
            self._projectors[key] = {
                name: (weights.get(name, 0), 0, size - weights.get(name, 0))
                for name, size in all_of_it.items()
            }
        return self._projectors[key]

    def _mtmd(self, library: str | None) -> Any:
        """libmtmd, on top of the libllama and libggml that are here already."""
        if library is None:
            raise WrongError("this engine has no libmtmd, so what a projector takes is unknown")
        mtmd = ctypes.CDLL(library)
        here, there = (
            ctypes.cast(lib.ggml_backend_dev_count, ctypes.c_void_p).value
            for lib in (ggml.lib, mtmd)
        )
        if here != there:  # it would see no devices of ours
            raise WrongError("libmtmd has a ggml of its own, so what a projector takes is unknown")
        return mtmd

    def _loaded(self, role: str, question: dict[str, Any]) -> _Model:
        """The model in that role; kept, because searches change mostly the context."""
        about = {
            name: question[name]
            for name in ("path", "n_gpu_layers", "tensor_split", "overrides", "devices", "rpc")
        }
        if role not in self._models or self._models[role].about != about:
            if role in self._models:
                llama_cpp.llama_model_free(self._models.pop(role).handle)
            params, held = self._model_params(about)
            handle = llama_cpp.llama_model_load_from_file(about["path"].encode(), params)
            if not handle:
                raise _RefusedError(about["path"])
            self._models[role] = _Model(handle, about, held)
        return self._models[role]

    def _model_params(self, question: dict[str, Any]) -> tuple[Any, list[Any]]:
        """llama.cpp's parameters, and what they point to."""
        params = llama_cpp.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = question["n_gpu_layers"]
        held: list[Any] = []
        if question["tensor_split"]:
            shares = (ctypes.c_float * 128)(*question["tensor_split"])
            held.append(shares)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        if question["overrides"]:
            overrides = ggml.overrides(question["overrides"])
            held.append(overrides)
            params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        if question["devices"] is not None:
            handles = [ggml.device_named(name) for name in question["devices"]]
            devices = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
            held.append(devices)
            params.devices = ctypes.cast(devices, ctypes.c_void_p)
        return params, held

    def _check_split(self, model: _Model, split: list[float] | None) -> None:
        """llama.cpp reads a missing share as 0 and one too many not at all, without a word."""
        count = ggml.lib["_Z21llama_model_n_devicesPK11llama_model"]
        count.restype, count.argtypes = ctypes.c_int32, [ctypes.c_void_p]
        n_devices = count(model.handle)
        if split and len(split) != n_devices:
            raise WrongError(
                f"the tensor split has {len(split)} shares and the model {n_devices} devices"
            )

    def _architecture(self, model: _Model) -> str:
        name = ctypes.create_string_buffer(64)
        key = b"general.architecture"
        llama_cpp.llama_model_meta_val_str(model.handle, key, name, len(name))
        return name.value.decode()

    def _context_params(self, question: dict[str, Any]) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = question["n_ctx"]
        params.n_seq_max = question["n_parallel"]
        params.n_batch = question["n_batch"]
        params.n_ubatch = question["n_ubatch"]
        params.type_k = question["type_k"]
        params.type_v = question["type_v"]
        params.flash_attn_type = question["flash_attn"]
        # llama-server's default, and not the library's: layers with a sliding window keep the
        # window, which at a long context is a small part of all.
        params.swa_full = False
        params.no_perf = True
        return params

    @contextlib.contextmanager
    def _context(self, model: _Model, params: Any) -> Iterator[Any]:
        context = llama_cpp.llama_init_from_model(model.handle, params)
        if not context:
            raise _RefusedError(model.about["path"])
        try:
            yield context
        finally:
            llama_cpp.llama_free(context)

    def _sizes(self, context: Any) -> dict[str, _Sizes]:
        """The breakdown of a context and its model."""
        sizes: dict[str, _Sizes] = {}
        for buffer_type, model, cells, compute in ggml.entries(self._breakdown(context), 3):
            sizes = _sum(sizes, {ggml.buffer_place(buffer_type): (model, cells, compute)})
        return sizes


def _sum(one: dict[str, _Sizes], other: dict[str, _Sizes]) -> dict[str, _Sizes]:
    """Device by device."""
    total = dict(one)
    for device, (model, context, compute) in other.items():
        before = total.get(device, (0, 0, 0))
        total[device] = (before[0] + model, before[1] + context, before[2] + compute)
    return total


def main() -> None:
    """Answers until standard input ends."""
    bound_memory()
    # Answers have standard output to themselves: what a driver prints there goes with the errors.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        runner = DryRunner()
        for line in sys.stdin:
            answers.write(json.dumps(runner.answer(json.loads(line))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
