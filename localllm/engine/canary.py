"""The first prompt of a loaded model: what it really takes, against what the plan predicted.

It asks its own llama-server; how a process's memory is read is injected, since that is for the
probe room to know. What becomes of a measurement is for others.

What is compared (Linux x86-64, 0.58B Q4_K_M, llama.cpp 0c1e570, 2026-11). The plan's host row is
weights + context + compute. The child holds it as private memory, but for weights that stay in
the mapped file, whose pages say nothing: the system drops and reads them as it likes, and those
of repacked weights, which are copied, stay resident though nobody needs them. So both sides leave
mapped pages out:

    extra = private + shared memory + pages of the program and its libraries
            + what of the compute buffers this prompt did not reach
            - private weights - context - compute

Private weights are all of them, or with mmap the copies that llama.cpp logs (EXTRA_ARGV). A
prompt of one micro-batch at the start of a context touches little of the compute buffers that a
full context needs: without the second line extra is 45 MiB at 4k of context, 19 at 32k and -196
at 8k without flash attention. With it, it was 45 to 50 MiB in all of these, with micro-batches of
128 to 1024, with 1 and 4 slots and with f16 and q8_0 caches, and mmap and none differed by less
than 1 MiB. The program and its libraries are 15 MiB of it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localllm.engine.client import http_client
from localllm.engine.server import LlamaServer
from localllm.measured import Measurement, ProcessMemory
from localllm.plan import Device, DeviceMemory, Plan
from localllm.units import GIB, MIB

if TYPE_CHECKING:
    import httpx

#: For the server that is to be measured: llama.cpp logs its buffers at "trace" (common/log.h).
#: What people write is not logged there, and a request adds some 3 KB to the bounded log.
EXTRA_ARGV = ("--verbosity", "4")

_HOST = "Host"
#: Without a forecast: a model of this size is done with a micro-batch in seconds on any machine.
_SMALL_MODEL_BYTES = 1 * GIB
#: Tokens that llama-server splits off a prompt's end to keep a state of what is before
#: (server-context.cpp, checkpoint_offsets).
_SPLIT_OFF = 4

# 0.00.007.919 I load_tensors:   CPU_Mapped model buffer size =   407.87 MiB
# 0.00.007.919 I load_tensors:   CPU_REPACK model buffer size =   202.50 MiB
_MODEL_BUFFER = re.compile(r"load_tensors: +(?P<name>\S+) model buffer size = +(?P<mib>[\d.]+) MiB")
#: Buffer types of main memory; others are named after their device ("CUDA0", "RPC0[…]").
_HOST_BUFFER = re.compile(r"(CPU|AMX|BLAS)(_.+)?|.+_Host")


@dataclass(frozen=True)
class Outcome:
    """What came of a canary.

    Attributes:
        measurement: None where nothing was measured.
        notes: for the log, a sentence each: why nothing was, or what of it was not.
    """

    measurement: Measurement | None
    notes: tuple[str, ...] = ()


def worthwhile(plan: Plan, limit_seconds: float) -> bool:
    """Whether a canary of this plan can be expected to end within the limit.

    1. Never for a model that cannot write.
    2. By the plan's prompt speed, at the lower end of its error, where it has one.
    3. Else only with layers on a device, or with a model of less than 1 GiB.
    """
    if not plan.model.is_generative:
        return False
    rate = plan.speed.prompt_tokens_per_second
    if rate is None:
        return plan.n_gpu_layers > 0 or plan.model.size_bytes < _SMALL_MODEL_BYTES
    slowest = rate * (1 - min(plan.speed.error or 0.0, 1.0))
    return _n_prompt(plan, plan.n_ctx // plan.n_parallel) <= slowest * limit_seconds


def measure(
    server: LlamaServer,
    plan: Plan,
    *,
    limit_seconds: float,
    host_used: Callable[[int], ProcessMemory | None],
    gpu_used: Callable[[int], Mapping[str, int]] = lambda _: {},
    devices: Sequence[Device] = (),
) -> Outcome:
    """Sends one full micro-batch, takes one token back, and looks at what the child then holds.

    The server must be ready, and nobody else may be using it. Its slot forgets the prompt at the
    next one; where the plan has a prompt cache, that then keeps it until others push it out.

    Args:
        server: started with EXTRA_ARGV; else with mmap the host's share stays unknown.
        plan: what it runs, with the memory that was predicted.
        limit_seconds: for everything. Past it the request is closed; llama-server gives up
            before the next micro-batch, so one that is being computed still ends.
        host_used: main memory of a process by its id.
        gpu_used: bytes of a process on each GPU, by its PCI address ("0000:65:00.0"); a GPU that
            does not tell is left out.
        devices: as the engine numbers them, with their PCI addresses.

    Raises:
        EngineError: the child died of it.
    """
    import httpx

    pid = server.pid
    if pid is None:
        return Outcome(None, ("The engine's process is not known.",))
    deadline = time.monotonic() + limit_seconds
    try:
        before = host_used(pid)
        with http_client(server.require_endpoint(), limit_seconds) as client:
            timings = _prompt(client, plan, deadline)
        after = host_used(pid)
    except httpx.TimeoutException:
        return Outcome(None, (f"The first prompt took longer than {limit_seconds:g} s.",))
    except httpx.RequestError as exc:
        death = server.explain_death()
        if death is not None:
            raise death from exc
        return Outcome(None, (f"The connection to the engine broke: {exc}.",))
    except _RefusedError as exc:
        return Outcome(None, (f"The engine did not take the first prompt: {exc}.",))
    rows = {row.device: row for row in plan.memory}
    extra: dict[str, int] = {}
    notes = []
    if _HOST in rows:
        host_extra, why_not = _host_extra(plan, rows[_HOST], before, after, server.log())
        if host_extra is not None:
            extra[_HOST] = host_extra
        else:
            notes.append(why_not)
    on_gpus = _by_name(gpu_used(pid), devices)
    for name, row in rows.items():
        if name == _HOST:
            continue
        used = on_gpus.get(name)
        # Process ids of another namespace (NVML in a container) may name somebody else's process.
        if used is None or used < row.model_bytes + row.context_bytes:
            notes.append(f"What the engine takes on {name} is not told.")
        else:
            extra[name] = used - _predicted(row)
    return Outcome(
        Measurement(
            extra_bytes=extra,
            peak_bytes={name: _predicted(rows[name]) + n_bytes for name, n_bytes in extra.items()},
            prompt_tokens_per_second=timings.get("prompt_per_second") or None,
            n_prompt=timings.get("prompt_n", 0),
            n_decoded=timings.get("predicted_n", 0),
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ),
        tuple(notes),
    )


class _RefusedError(Exception):
    """The server answered, but not with a completion."""


def _prompt(client: httpx.Client, plan: Plan, deadline: float) -> dict[str, Any]:
    """The timings of the canary's prompt.

    Streamed, because llama-server notices the closing of such a request at once. Its first byte
    comes with the first token (the response's headers, too), so that the wait for it is the one
    that has to be bounded.
    """
    import httpx

    def time_left() -> httpx.Timeout:
        # 0 would mean not to wait, and an error of another kind.
        return httpx.Timeout(max(0.001, deadline - time.monotonic()))

    props = client.get("/props", timeout=time_left())
    models = client.get("/v1/models", timeout=time_left())
    n_ctx, n_vocab = _limits(props, models)
    body = {
        "prompt": _tokens(_n_prompt(plan, n_ctx), n_vocab),
        "n_predict": 1,
        "cache_prompt": False,
        "stream": True,
        "sse_ping_interval": -1,  # each would begin the wait anew
    }
    with client.stream("POST", "/completion", json=body, timeout=time_left()) as response:
        if response.status_code != 200:
            raise _RefusedError(f"{response.status_code} {response.read()[:200]!r}")
        return _timings(response.iter_lines())


def _limits(props: httpx.Response, models: httpx.Response) -> tuple[int, int]:
    """(tokens that a slot holds, size of the vocabulary).

    /props: {"default_generation_settings": {"n_ctx": 4096, …}, "total_slots": 1, …}
    /v1/models: {"data": [{"id": "…", "meta": {"n_vocab": 151936, "n_ctx_train": 32768, …}}], …}
    """
    try:
        n_ctx = int(props.json()["default_generation_settings"]["n_ctx"])
        n_vocab = int(models.json()["data"][0]["meta"]["n_vocab"])
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise _RefusedError(f"it does not tell its context or its vocabulary ({exc!r})") from exc
    if n_ctx < 2 or n_vocab < 1:
        raise _RefusedError(f"a context of {n_ctx} and a vocabulary of {n_vocab} tokens")
    return n_ctx, n_vocab


def _timings(lines: Iterable[str]) -> dict[str, Any]:
    """The last event's timings.

    data: {"index":0,"content":" a","tokens":[264],"stop":false,…}
    data: {"index":0,"content":"","stop":true,…,"timings":{"prompt_n":512,"prompt_ms":1907.9,
        "prompt_per_second":268.4,"predicted_n":1,…}}
    """
    timings: Any = None
    for line in lines:
        if line.startswith("data:"):
            try:
                event = json.loads(line[5:])
            except ValueError as exc:
                raise _RefusedError("its reply is not JSON") from exc
            if not isinstance(event, dict) or "error" in event:
                raise _RefusedError(line[5:205].strip())
            timings = event.get("timings", timings)
    if not isinstance(timings, dict):
        raise _RefusedError("its reply has no timings")
    return timings


def _n_prompt(plan: Plan, n_ctx: int) -> int:
    """Tokens of a prompt that fills a micro-batch in a slot of n_ctx tokens."""
    n_ubatch = min(plan.n_ubatch, plan.n_batch)
    return min(n_ubatch + (_SPLIT_OFF if plan.n_ctx_checkpoints else 0), n_ctx - 1)


def _tokens(n_tokens: int, n_vocab: int) -> list[int]:
    """Tokens from all over the vocabulary, so that they differ and wake different experts."""
    # Knuth's multiplicative hashing: the golden ratio of 2^32.
    return [index * 2654435761 % n_vocab for index in range(n_tokens)]


def _host_extra(
    plan: Plan,
    row: DeviceMemory,
    before: ProcessMemory | None,
    after: ProcessMemory | None,
    log: str,
) -> tuple[int | None, str]:
    """(the host's extra bytes, "") or (None, why not); the module's docstring says how."""
    if before is None or after is None:
        return None, "What the engine takes of main memory is not told."
    weights = row.model_bytes if plan.load_mode != "mmap" else _private_weights(plan, log)
    if weights is None:
        return None, "How much of the mapped weights the engine copied is not told."
    private = after.anonymous_bytes + after.shared_bytes
    if private < weights + row.context_bytes:
        # Memory that a driver pinned is none of the process's own kinds.
        return None, "The engine's weights are in memory that the system does not count as its own."
    reached = after.anonymous_bytes - before.anonymous_bytes
    unreached = max(0, min(row.compute_bytes - reached, after.untouched_bytes))
    taken = private + after.program_bytes + unreached
    if plan.load_mode != "mmap":
        # Loading may have taken more than running: tensors on their way to a device are read into
        # main memory one by one, which was 150 MiB more with a vocabulary of 152k.
        taken = max(taken, after.peak_bytes)
    return taken - weights - row.context_bytes - row.compute_bytes, ""


def _private_weights(plan: Plan, log: str) -> int | None:
    """Bytes of weights that are not in the mapped file, by the engine's log; None if not there."""
    buffers = _MODEL_BUFFER.findall(log)
    # A projector's weights are copied as well, and are not logged in this way.
    if not buffers or plan.mmproj is not None:
        return None
    return sum(
        round(float(mib) * MIB)
        for name, mib in buffers
        if _HOST_BUFFER.fullmatch(name) and not name.endswith("_Mapped")
    )


def _by_name(used: Mapping[str, int], devices: Sequence[Device]) -> dict[str, int]:
    """Bytes by PCI address -> by llama.cpp's name of the device."""
    return {
        device.name: used[device.pci_bus_id.lower()]
        for device in devices
        if device.pci_bus_id is not None and device.pci_bus_id.lower() in used
    }


def _predicted(row: DeviceMemory) -> int:
    return row.model_bytes + row.context_bytes + row.compute_bytes
