"""Dry-runs models in a process of its own: one JSON question a line in, one answer a line out.

Run as `python -m localllm.engine.dryrun_child`. llama.cpp builds the real graphs on dummy buffers
(`no_alloc`) and says what it would have allocated, to the byte; it may also abort over a model
that it does not like, which is why this is not done in localllm's own process.

Question: {"path", "n_ctx", "n_parallel", "n_gpu_layers", "n_batch", "n_ubatch", "type_k",
"type_v" (ggml_type numbers), "flash_attn" (-1 auto, 0 off, 1 on), "tensor_split", "overrides",
"devices", "rpc"}. Answer: {"rows": [[device, model, context, compute], …], "free": {device:
bytes}}, or {"refused": llama.cpp's log}.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from typing import Any


def _bindings() -> Any:
    """llama_cpp.llama_cpp without the package around it.

    The package imports numpy and all of its high-level classes, 130 of the 160 ms that it takes
    to load; the bindings need none of that.
    """
    package = types.ModuleType("llama_cpp")
    spec = importlib.util.find_spec("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


llama_cpp = _bindings()

_CPU, _ACCEL = 0, 3  # ggml_backend_dev_type

# A dry run reports the first of the compute buffers' three plans, made for all slots; for these
# architectures the last plan is made for a single one and takes more (llama-context.cpp,
# TAG_RESERVE_DIAG_DECAY: it grows with the square of a slot's share of the micro-batch).
_LAST_PLANNED_FOR_ONE_SLOT = ("kimi-linear", "minimax-01")

# llama_memory_breakdown is std::map<buffer type, {model, context, compute}>, returned by value.
# Only its root pointer is used, and only by following the nodes' own pointers, so that it does
# not matter that ctypes has moved the map object. (words in the map, root's word in it, offsets
# in a node of left, right, value), by standard library:
_LIBSTDCXX = (6, 2, 16, 24, 32)
_LIBCXX = (3, 1, 0, 8, 32)
_MAP_WORDS, _ROOT, _LEFT, _RIGHT, _VALUE = _LIBCXX if sys.platform == "darwin" else _LIBSTDCXX


class _Map(ctypes.Structure):
    _fields_ = [("words", ctypes.c_size_t * _MAP_WORDS)]


class _Override(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


class DryRunner:
    """Answers questions; keeps the last model, because searches change only the context."""

    def __init__(self) -> None:
        # ggml's functions are looked up through libllama, which depends on them: a wheel holds
        # libggml.so and libggml.so.0 as two files, and loading the other one makes a second ggml
        # with devices of its own.
        self._lib = llama_cpp._lib
        self._log: list[str] = []

        def keep(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
            self._log.append(text.decode("utf-8", "replace"))
            del self._log[:-200]

        self._keep_log = llama_cpp.llama_log_callback(keep)  # ctypes does not hold on to it
        llama_cpp.llama_log_set(self._keep_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        breakdown = self._lib["_Z26llama_get_memory_breakdownPK13llama_context"]
        breakdown.restype, breakdown.argtypes = _Map, [ctypes.c_void_p]
        self._breakdown = breakdown
        self._servers: set[str] = set()
        self._model: Any = None
        self._model_question: dict[str, Any] = {}
        self._held: list[Any] = []

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What this run would take, or why it cannot be."""
        self._log.clear()
        self._add_rpc(question["rpc"])
        about_model = {
            name: question[name]
            for name in ("path", "n_gpu_layers", "tensor_split", "overrides", "devices", "rpc")
        }
        if self._model is None or about_model != self._model_question:
            self._load(about_model)
        if not self._model:
            return {"refused": "".join(self._log)}
        rows = self._context_rows(question)
        if rows is None:
            return {"refused": "".join(self._log)}
        n_slots = question["n_parallel"]
        if n_slots > 1 and self._architecture() in _LAST_PLANNED_FOR_ONE_SLOT:
            # A slot's context, but no smaller than a micro-batch, which would shrink with it.
            n_ctx = max(question["n_ctx"] // n_slots, question["n_ubatch"])
            one = self._context_rows({**question, "n_parallel": 1, "n_ctx": n_ctx}) or []
            compute = {device: size for device, _, _, size in one}
            rows = [
                (device, model, context, max(size, compute.get(device, 0)))
                for device, model, context, size in rows
            ]
        return {"rows": rows, "free": dict(self._free())}

    def _context_rows(self, question: dict[str, Any]) -> list[tuple[str, int, int, int]] | None:
        """The breakdown with a context, or None where llama.cpp refuses to make it."""
        context = llama_cpp.llama_init_from_model(self._model, self._context_params(question))
        if not context:
            return None
        try:
            return list(self._rows(self._breakdown(context)))
        finally:
            llama_cpp.llama_free(context)

    def _architecture(self) -> str:
        name = ctypes.create_string_buffer(64)
        llama_cpp.llama_model_meta_val_str(self._model, b"general.architecture", name, len(name))
        return name.value.decode()

    def _load(self, question: dict[str, Any]) -> None:
        if self._model:
            llama_cpp.llama_model_free(self._model)
        params = llama_cpp.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = question["n_gpu_layers"]
        self._held = []
        if question["tensor_split"]:
            shares = (ctypes.c_float * 128)(*question["tensor_split"])
            self._held.append(shares)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        if question["overrides"]:
            overrides = self._overrides(question["overrides"])
            self._held.append(overrides)
            params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        if question["devices"] is not None:
            handles = [self._device_named(name) for name in question["devices"]]
            devices = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
            self._held.append(devices)
            params.devices = ctypes.cast(devices, ctypes.c_void_p)
        self._model = llama_cpp.llama_model_load_from_file(question["path"].encode(), params)
        self._model_question = question

    def _context_params(self, question: dict[str, Any]) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = question["n_ctx"]
        params.n_seq_max = question["n_parallel"]
        params.n_batch = question["n_batch"]
        params.n_ubatch = question["n_ubatch"]
        params.type_k = question["type_k"]
        params.type_v = question["type_v"]
        params.flash_attn_type = question["flash_attn"]
        # As llama-server does (server-context.cpp): one output a slot. The default is one a
        # token of the batch, which makes the logits' buffer many times larger.
        params.n_outputs_max = question["n_parallel"]
        params.n_outputs_max_per_seq = 1
        params.no_perf = True
        return params

    def _rows(self, breakdown: _Map) -> Iterator[tuple[str, int, int, int]]:
        """(device, model, context, compute), buffer types of the host under "Host"."""
        totals: dict[str, list[int]] = {}
        for buffer_type, *sizes in _nodes(breakdown.words[_ROOT]):
            device = self._device_of(buffer_type)
            totals[device] = [
                a + b for a, b in zip(totals.get(device, (0, 0, 0)), sizes, strict=True)
            ]
        for device, (model, context, compute) in totals.items():
            yield device, model, context, compute

    def _device_of(self, buffer_type: int) -> str:
        if self._call("ggml_backend_buft_is_host", ctypes.c_bool, buffer_type):
            return "Host"
        device = self._call("ggml_backend_buft_get_device", ctypes.c_void_p, buffer_type)
        if not device or self._kind(device) in (_CPU, _ACCEL):
            return "Host"  # CPU_REPACK and its kin
        return self._name(device)

    def _free(self) -> Iterator[tuple[str, int]]:
        for device in self._devices():
            if self._kind(device) in (_CPU, _ACCEL):
                continue
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            self._lib.ggml_backend_dev_memory.restype = None
            self._lib.ggml_backend_dev_memory(
                ctypes.c_void_p(device), ctypes.byref(free), ctypes.byref(total)
            )
            yield self._name(device), free.value

    def _devices(self) -> list[int]:
        count = self._lib.ggml_backend_dev_count
        count.restype = ctypes.c_size_t
        get = self._lib.ggml_backend_dev_get
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        return [get(index) for index in range(count())]

    def _device_named(self, name: str) -> int:
        return next(device for device in self._devices() if self._name(device) == name)

    def _overrides(self, texts: list[str]) -> Any:
        """`pattern=buffer type` strings, as --override-tensor takes them."""
        types = {}
        for device in self._devices():
            handle = self._call("ggml_backend_dev_buffer_type", ctypes.c_void_p, device)
            name = self._call("ggml_backend_buft_name", ctypes.c_char_p, handle)
            types[name.decode()] = handle
        pairs = [text.rpartition("=") for text in texts]
        return (_Override * (len(pairs) + 1))(
            *(_Override(pattern.encode(), types[name]) for pattern, _, name in pairs)
        )

    def _add_rpc(self, endpoints: list[str]) -> None:
        for endpoint in endpoints:
            if endpoint in self._servers:
                continue
            by_name = self._lib.ggml_backend_reg_by_name
            by_name.restype, by_name.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
            address = self._lib.ggml_backend_reg_get_proc_address
            address.restype, address.argtypes = (
                ctypes.c_void_p,
                [ctypes.c_void_p, ctypes.c_char_p],
            )
            add = address(by_name(b"RPC"), b"ggml_backend_rpc_add_server")
            registration = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(add)(
                endpoint.encode()
            )
            register = self._lib.ggml_backend_register
            register.restype, register.argtypes = None, [ctypes.c_void_p]
            register(registration)
            self._servers.add(endpoint)

    def _kind(self, device: int) -> int:
        kind: int = self._call("ggml_backend_dev_type", ctypes.c_int, device)
        return kind

    def _name(self, device: int) -> str:
        name: bytes = self._call("ggml_backend_dev_name", ctypes.c_char_p, device)
        return name.decode()

    def _call(self, function: str, restype: Any, handle: int) -> Any:
        entry = getattr(self._lib, function)
        entry.restype, entry.argtypes = restype, [ctypes.c_void_p]
        return entry(handle)


def _nodes(address: int) -> Iterator[tuple[int, int, int, int]]:
    """(key, model, context, compute) of a red-black tree, in order."""
    if not address:
        return
    yield from _nodes(_word(address + _LEFT))
    yield (
        _word(address + _VALUE),
        _word(address + _VALUE + 8),
        _word(address + _VALUE + 16),
        _word(address + _VALUE + 24),
    )
    yield from _nodes(_word(address + _RIGHT))


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def main() -> None:
    """Answers until standard input ends."""
    runner = DryRunner()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(runner.answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
