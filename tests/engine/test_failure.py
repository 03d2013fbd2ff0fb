"""What the engine printed before it died -> the error that a person reads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.engine.argv import server_argv
from localllm.engine.failure import explain_load_failure
from localllm.engine.locate import SERVER, Tools
from localllm.errors import EngineError, IntegrityError, OutOfMemoryError
from localllm.plan import Plan
from tests.conftest import PATIENCE_SECONDS

SIGABRT, SIGKILL = 128 + 6, 128 + 9

#: Logs as they were seen, and whose memory it was. Those of the host are this engine's own, under
#: `ulimit -v`; the others are of the reports named in failure.py.
OUT_OF_MEMORY = {
    "host, weights": (
        "0.00.163.833 E ggml_aligned_malloc: insufficient memory (attempted to allocate 151.88"
        " MB)\n"
        "0.00.163.896 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of"
        " size 159252480\n"
        "0.00.163.900 E alloc_tensor_range: failed to allocate CPU_REPACK buffer of size"
        " 159252480\n"
        "0.00.186.205 E llama_model_load: error loading model: unable to allocate CPU_REPACK"
        " buffer\n",
        "Host",
    ),
    "host, context": (
        "0.00.275.047 E alloc_tensor_range: failed to allocate CPU buffer of size 1610612736\n"
        "0.00.275.173 E llama_init_from_model: failed to initialize the context: failed to allocate"
        " buffer for kv cache\n",
        "Host",
    ),
    "host, anywhere": (
        "terminate called after throwing an instance of 'std::bad_alloc'\n"
        "  what():  std::bad_alloc\n",
        "Host",
    ),
    "host, mapping": (
        "llama_model_load: error loading model: mmap failed: Cannot allocate memory\n",
        "Host",
    ),
    "CUDA, compute": (
        "1.06.520.077 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 51748.72 MiB on"
        " device 1: cudaMalloc failed: out of memory\n"
        "1.06.520.084 E ggml_gallocr_reserve_n_impl: failed to allocate CUDA1 buffer of size"
        " 54262464512\n"
        "1.06.520.086 E graph_reserve: failed to allocate compute buffers\n",
        "CUDA1",
    ),
    "CUDA, running": (
        "0.15.079.619 E CUDA error: out of memory\n"
        "0.15.079.619 E   current device: 2, in function alloc at ggml-cuda.cu:549\n"
        "0.15.079.620 E   cuMemCreate(&handle, reserve_size, &prop, 0)\n",
        "CUDA2",
    ),
    "CUDA, cuBLAS": (
        "CUDA error: the resource allocation failed\n"
        "  current device: 0, in function cublas_handle at common.cuh:988\n",
        "CUDA0",
    ),
    "ROCm, compute": (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 826.00 MiB on device 0: cudaMalloc"
        " failed: out of memory\n"
        "ggml_gallocr_reserve_n: failed to allocate ROCm0 buffer of size 866125824\n",
        "ROCm0",
    ),
    "ROCm, running": (
        "ROCm error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:411\n",
        "ROCm0",
    ),
    "Vulkan, loading": (
        "ggml_vulkan: Device memory allocation of size 118497280 failed.\n"
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory\n"
        "alloc_tensor_range: failed to allocate Vulkan0 buffer of size 118497280\n",
        "Vulkan0",
    ),
    "Vulkan, running": (
        "ggml_vulkan: Device memory allocation of size 369827840 failed.\n"
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory\n"
        "double free or corruption (out)\n",
        None,
    ),
    "Metal": (
        "ggml_metal_synchronize: error: command buffer 0 failed with status 5\n"
        "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)\n",
        "MTL0",
    ),
    "RPC": (
        "alloc_tensor_range: failed to allocate RPC1[127.0.0.1:50052] buffer of size 9932816\n",
        "RPC1",
    ),
}


@pytest.mark.parametrize(("log", "device"), OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_running_out_of_memory_is_told_apart_and_says_whose_it_was(
    log: str, device: str | None
) -> None:
    error = explain_load_failure(f"before\n{log}after\n", "/m.gguf", SIGABRT)
    assert isinstance(error, OutOfMemoryError)
    assert error.device == device
    assert "ran out of memory" in error.message
    assert error.message.endswith(" while loading /m.gguf")
    if device is not None:
        assert ("the host" if device == "Host" else device) in error.message
    assert "--ctx" in (error.hint or "")
    assert error.detail.endswith("after\n")


GOT_OVER = {
    "pinned memory": "ggml_cuda_host_malloc: failed to allocate 1900.00 MiB of pinned memory:"
    " out of memory",
    "a saved prompt": "failed to allocate memory for prompt cache state: std::bad_alloc",
    "locked memory": "warning: failed to mlock 100-byte buffer: Cannot allocate memory",
    "pipelining": OUT_OF_MEMORY["CUDA, compute"][0]
    + "sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism",
}


@pytest.mark.parametrize("log", GOT_OVER.values(), ids=GOT_OVER)
def test_what_the_engine_got_over_is_not_what_it_died_of(log: str) -> None:
    error = explain_load_failure(f"{log}\nserver is listening\n", "/m.gguf", 128 + 11)
    assert type(error) is EngineError
    assert "SIGSEGV" in error.message


def test_a_long_log_is_read_in_no_time() -> None:
    # Twice the 2 MiB that are kept of it; what takes time by its square would take hours.
    noise = "0.15.079.619 I slot update: failed to find, 42 to allocate; error: none\n" * 60_000
    log = noise + "x" * (1 << 20)
    assert type(explain_load_failure(log, "/m.gguf", SIGABRT)) is EngineError


@pytest.mark.parametrize("status", [SIGKILL, -9])
def test_a_death_by_the_kernel_for_want_of_memory_is_one_of_the_hosts_memory(status: int) -> None:
    error = explain_load_failure("", "/m.gguf", status, killed_for_memory=True)
    assert isinstance(error, OutOfMemoryError)
    assert error.device == "Host"
    other = explain_load_failure("", "/m.gguf", status)
    assert type(other) is EngineError
    assert "SIGKILL" in other.message


def test_another_death_is_not_of_memory_because_something_else_was_killed_for_it() -> None:
    error = explain_load_failure("", "/m.gguf", 128 + 11, killed_for_memory=True)
    assert type(error) is EngineError


def test_a_file_that_is_cut_short_is_no_want_of_memory() -> None:
    log = (
        "llama_model_load: error loading model: tensor 'blk.1.ffn_up.weight' data is not within the"
        " file bounds, model is corrupted or incomplete\n"
    )
    error = explain_load_failure(log, "/m.gguf", 1)
    assert isinstance(error, IntegrityError)
    assert "'blk.1.ffn_up.weight'" in error.message


def test_a_header_that_claims_too_much_is_no_want_of_memory() -> None:
    log = (
        "gguf_init_from_reader: encountered bad_alloc error while reading value for key 'a'\n"
        "llama_model_load: error loading model: failed to load GGUF split from m.gguf\n"
    )
    assert type(explain_load_failure(log, "/m.gguf", 1)) is EngineError


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its limit")
def test_this_engine_under_a_limit_says_that_it_was_the_hosts_memory(
    tools: Tools, tiny_plan: Plan, tmp_path: Path
) -> None:
    # A context of 8 GiB at least, for a process that may have 3.
    plan = replace(tiny_plan, n_ctx=1 << 25)
    limited = ["sh", "-c", 'ulimit -v 3000000; exec "$@"', "sh"]
    address = ["--host", str(tmp_path / "s.sock"), "--port", "1"]
    done = subprocess.run(
        [*limited, *server_argv(plan, str(tools.path(SERVER))), *address],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    error = explain_load_failure(done.stderr + done.stdout, plan.model.path, done.returncode)
    assert isinstance(error, OutOfMemoryError)
    assert error.device == "Host"
