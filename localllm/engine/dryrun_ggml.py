"""ggml's devices and llama.cpp's maps of memory, as the dry run's child reaches them by ctypes.

Importing it loads the engine, which may end the process: only dryrun_child.py does.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
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

# ggml's functions are looked up through libllama, which depends on them: a wheel holds libggml.so
# and libggml.so.0 as two files, and loading the other one makes a second ggml with devices of its
# own.
lib: Any = llama_cpp._lib

_CPU, _ACCEL = 0, 3  # ggml_backend_dev_type

# What says memory is a std::map of pointers to sizes, returned by value. Only its root pointer is
# used, and only by following the nodes' own pointers, so that it does not matter that ctypes has
# moved the map object. (words in the map, root's word in it, offsets in a node of left, right,
# value), by standard library:
_LIBSTDCXX = (6, 2, 16, 24, 32)
_LIBCXX = (3, 1, 0, 8, 32)
_MAP_WORDS, _ROOT, _LEFT, _RIGHT, _VALUE = _LIBCXX if sys.platform == "darwin" else _LIBSTDCXX

_servers: set[str] = set()


class Map(ctypes.Structure):
    """A std::map, as returned by value."""

    _fields_ = [("words", ctypes.c_size_t * _MAP_WORDS)]


class _Override(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


class _Properties(ctypes.Structure):
    """ggml_backend_dev_props (ggml-backend.h)."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 64),  # five today
    ]


class WrongError(Exception):
    """The question cannot be answered; its text says why."""


def entries(returned: Map, n_values: int) -> Iterator[tuple[int, ...]]:
    """(key, value, …) of a map of pointers to structures of n_values words, in order."""
    yield from _nodes(returned.words[_ROOT], n_values)


def _nodes(address: int, n_values: int) -> Iterator[tuple[int, ...]]:
    """(key, value, …) of a red-black tree with word-sized keys and values, in order."""
    if not address:
        return
    yield from _nodes(_word(address + _LEFT), n_values)
    yield tuple(_word(address + _VALUE + 8 * at) for at in range(1 + n_values))
    yield from _nodes(_word(address + _RIGHT), n_values)


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def buffer_place(buffer_type: int) -> str:
    """The device of a buffer type, "Host" for all of the host's."""
    if _call("ggml_backend_buft_is_host", ctypes.c_bool, buffer_type):
        return "Host"
    # CPU_REPACK and its kin are no host buffers, but the host's.
    device = _call("ggml_backend_buft_get_device", ctypes.c_void_p, buffer_type)
    return place_name(device) if device else "Host"


def place_name(device: int) -> str:
    """A device's name, "Host" for the processor and what helps it."""
    return "Host" if _kind(device) in (_CPU, _ACCEL) else _name(device)


def free_bytes() -> dict[str, int]:
    """Free bytes by device, in the engine's order."""
    described = [describe(device) for device in places()]
    return {device["name"]: device["free_bytes"] for device in described}


def describe(device: int) -> dict[str, Any]:
    """What the device says of itself, as the answer has it."""
    properties = _Properties()
    get = lib.ggml_backend_dev_get_props
    get.restype, get.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]
    get(device, ctypes.byref(properties))
    return {
        "name": properties.name.decode(),
        "description": (properties.description or b"").decode("utf-8", "replace"),
        "free_bytes": properties.memory_free,
        "total_bytes": properties.memory_total,
        "device_id": properties.device_id.decode() if properties.device_id else None,
    }


def places() -> list[int]:
    """The devices that layers can be offloaded to."""
    return [device for device in devices() if _kind(device) not in (_CPU, _ACCEL)]


def devices() -> list[int]:
    """All devices, the processor too."""
    count = lib.ggml_backend_dev_count
    count.restype = ctypes.c_size_t
    get = lib.ggml_backend_dev_get
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    return [get(index) for index in range(count())]


def device_named(name: str) -> int:
    """The device that --device would take by this name."""
    for device in devices():
        if _name(device) == name:
            return device
    raise WrongError(f"this engine has no device {name}")


def overrides(texts: list[str]) -> Any:
    """`pattern=buffer type` strings, as --override-tensor takes them."""
    types = {}
    for device in devices():
        handle = _call("ggml_backend_dev_buffer_type", ctypes.c_void_p, device)
        name = _call("ggml_backend_buft_name", ctypes.c_char_p, handle)
        types[name.decode()] = handle
    pairs = [pair.partition("=") for text in texts for pair in text.split(",")]
    for _, _, name in pairs:
        if name not in types:
            raise WrongError(f"this engine has no buffer type {name}")
    return (_Override * (len(pairs) + 1))(
        *(_Override(pattern.encode(), types[name]) for pattern, _, name in pairs)
    )


def add_rpc(endpoints: list[str]) -> None:
    """Adds the devices behind RPC endpoints, once; aborts where nothing answers."""
    by_name = lib.ggml_backend_reg_by_name
    by_name.restype, by_name.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    address = lib.ggml_backend_reg_get_proc_address
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    register = lib.ggml_backend_register
    register.restype, register.argtypes = None, [ctypes.c_void_p]
    for endpoint in endpoints:
        if endpoint in _servers:
            continue
        backend = by_name(b"RPC")
        if not backend:
            raise WrongError("this engine was built without RPC")
        add = address(backend, b"ggml_backend_rpc_add_server")
        register(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(add)(endpoint.encode()))
        _servers.add(endpoint)


def _kind(device: int) -> int:
    kind: int = _call("ggml_backend_dev_type", ctypes.c_int, device)
    return kind


def _name(device: int) -> str:
    name: bytes = _call("ggml_backend_dev_name", ctypes.c_char_p, device)
    return name.decode()


def _call(function: str, restype: Any, handle: int) -> Any:
    entry = getattr(lib, function)
    entry.restype, entry.argtypes = restype, [ctypes.c_void_p]
    return entry(handle)
