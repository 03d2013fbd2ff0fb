"""Small machines and models at random, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import replace

from localllm.hardware import Accelerator
from localllm.plan import Device
from localllm.planner import Wishes
from localllm.profiles import Goal
from localllm.units import GIB, KIB, MIB
from localllm.weights import LayerWeights, Weights
from tests.planner.fakes import CHAT, LONG, SERVE, Cache, Case, FakeModel, apple, gpu, machine

#: Of the same model, by how large they are against the largest.
_QUANTS = {"Q2_K": 0.37, "Q3_K_M": 0.47, "Q4_K_M": 0.58, "Q6_K": 0.77, "Q8_0": 1.0}


def random_case(seed: int, noise: float = 0.0) -> tuple[Case, Goal, Wishes]:
    """A case, what it is for, and what is asked for.

    Args:
        seed: of everything.
        noise: by how much compute buffers differ from one placement to another, as a share.
    """
    draw = random.Random(seed)
    models = _models(draw)
    size = max(model.size_bytes for model in models)
    cards = _cards(draw, size)
    main = _log(draw, 0.3 * size, 4 * size) + 800 * MIB
    hardware = machine(
        draw.choice([main] * 9 + [None]),
        *cards,
        bandwidth=draw.choice([20e9, 60e9, 200e9, None]),
        limit_bytes=draw.choice([None, None, None, int(0.8 * main)]),
    )
    if cards and cards[0][1].unified:
        cards = [_unified(draw, card, main) for card in cards]
        hardware = replace(hardware, accelerators=tuple(found for _, found in cards))
    case = Case(
        hardware,
        tuple(models),
        tuple(device for device, _ in cards),
        noise=noise,
        seed=seed,
    )
    goal = draw.choice([CHAT, CHAT, SERVE, LONG])
    wished = draw.choice([1024, 2048, 3072])
    goal = replace(goal, n_ctx_wished=wished, n_ctx_least=wished // 4)
    return case, goal, Wishes(prefer=draw.choice(["quality", "quality", "speed"]))


def _log(draw: random.Random, low: float, high: float) -> int:
    return int(low * (high / low) ** draw.random())


def _models(draw: random.Random) -> list[FakeModel]:
    """Some quantizations of one model."""
    n_layers = draw.randint(2, 5)
    layer_bytes = _log(draw, 20 * MIB, 3 * GIB)
    has_experts = draw.random() < 0.35
    n_dense = draw.randint(0, 1) if has_experts else n_layers
    kind = draw.random()
    token_bytes = _log(draw, 4 * KIB, 512 * KIB)
    state = _log(draw, MIB, 16 * MIB)
    caches = []
    for _ in range(n_layers):
        if kind < 0.2:
            caches.append(Cache(token_bytes, window=512))
        elif kind < 0.35:
            caches.append(Cache(token_bytes, state_bytes=state))
        else:
            caches.append(Cache(token_bytes))
    takes_q8_0 = draw.random() < 0.85
    is_tied = draw.random() < 0.3
    compute = _log(draw, 8 * MIB, 512 * MIB)
    found = []
    for label in draw.sample(sorted(_QUANTS), draw.randint(1, 4)):
        share = _QUANTS[label]
        layers = tuple(
            LayerWeights(
                int(layer_bytes * share * (0.1 if at >= n_dense else 1)),
                int(layer_bytes * share * 0.9) if at >= n_dense else 0,
                layer_bytes,
                layer_bytes if at >= n_dense else 0,
            )
            for at in range(n_layers)
        )
        head = int(layer_bytes * share / 2)
        weights = Weights(
            layers, head, 0 if is_tied else head, head if is_tied else 0, layer_bytes // 2,
            16 if has_experts else 0, draw.choice([1, 2]) if has_experts else 0,
        )  # fmt: skip
        found.append(FakeModel(label, weights, tuple(caches), compute, takes_q8_0))
    return found


def _cards(draw: random.Random, size: int) -> list[tuple[Device, Accelerator]]:
    """None, some alike, some not alike, or one that shares main memory."""
    n_cards = draw.choice([0, 1, 1, 2, 2, 2, 3])
    if n_cards and draw.random() < 0.2:
        return [apple(0)]
    overhead = 1200 * MIB
    free = _log(draw, 0.2 * size, 2 * size) + overhead
    speed = draw.choice([80e9, 300e9, 900e9, None])
    cards = []
    are_alike = draw.random() < 0.5
    for at in range(n_cards):
        if not are_alike:
            free = _log(draw, 0.2 * size, 2 * size) + overhead
            speed = draw.choice([40e9, 80e9, 300e9, 900e9])
        free_bytes = None if draw.random() < 0.05 else free
        title = "GPU" if are_alike else f"GPU of {at}"
        device, card = gpu(f"CUDA{at}", free_bytes, speed, title=title)
        cards.append((device, replace(card, display=draw.random() < 0.2)))
    return cards


def _unified(
    draw: random.Random, card: tuple[Device, Accelerator], main: int
) -> tuple[Device, Accelerator]:
    limit = draw.choice([None, int(0.7 * main)])
    return apple(main, limit, draw.choice([100e9, 400e9]))
