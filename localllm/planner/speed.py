"""Tokens per second, before anything ran: bytes moved per token over the bandwidth that is there.

Decoding reads every weight that a token needs once, and the context so far; a place that reads
slowly holds up all others, because layers follow each other. Prompts are bound by arithmetic
instead. The shares of data sheets that are reached stand in profiles/policy.yaml with their
sources; an estimate may be off by `Policy.speed_error`.
"""

from __future__ import annotations

from collections.abc import Mapping

from localllm.planner.placement import Load
from localllm.planner.places import Machine

#: Handing a token's activations from one place to the next, and waiting for it: two transfers
#: of some 10 KB and a wake-up. It makes one device better than two alike.
_CROSSING_SECONDS = 100e-6


def decode_seconds(
    machine: Machine, loads: Mapping[str, Load], context_bytes: Mapping[str, float]
) -> float | None:
    """Seconds for one token of one conversation; None where a bandwidth is not known.

    Args:
        machine: the places.
        loads: what each holds.
        context_bytes: of the KV cache read per token, by place.
    """
    total = 0.0
    n_places = 0
    for name, load in loads.items():
        if not load.n_layers and not load.read_bytes:
            continue
        place = machine.place(name)
        if place.bytes_per_second is None:
            return None
        total += (load.read_bytes + context_bytes.get(name, 0.0)) / place.bytes_per_second
        total += load.n_layers * place.layer_seconds
        n_places += 1
    return total + max(0, n_places - 1) * _CROSSING_SECONDS


def prompt_seconds(machine: Machine, loads: Mapping[str, Load]) -> float | None:
    """Seconds for each token of a long prompt; None where a place's arithmetic is not known."""
    total = 0.0
    for name, load in loads.items():
        if not load.flops:
            continue
        flops = machine.place(name).flops
        if flops is None:
            return None
        total += load.flops / flops
    return total
