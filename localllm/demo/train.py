"""Train the demo model on the CPU: `python -m localllm.demo.train`.

Knows the network, the optimiser and how conversations are packed into rows; the text comes from
corpus.py and the file is written by export.py. Needs `pip install 'localllm[train]'`. The default
3000 steps take about 28 minutes on two quiet cores with AVX-512 and BF16.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn

from localllm.demo import chatml, corpus, export, model_path
from localllm.demo.tokenizer import Tokenizer, train

SEED = 20261120
# What the person says is worth a little: the words get a meaning even where no answer hangs on it.
USER_WEIGHT = 0.08
# Merges are left out in a part of the questions, so that unseen spellings are not unseen tokens.
DROPOUT_SHARE = 0.25
DROPOUT = 0.1


class Attention(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """Grouped-query attention; positions rotate neighbouring pairs, as in llama.cpp's llama."""

    def __init__(self, shape: export.Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = shape.n_head, shape.n_head_kv, shape.head_size
        self.q = nn.Linear(shape.n_embd, self.heads * self.size, bias=False)
        self.k = nn.Linear(shape.n_embd, self.kv_heads * self.size, bias=False)
        self.v = nn.Linear(shape.n_embd, self.kv_heads * self.size, bias=False)
        self.output = nn.Linear(self.heads * self.size, shape.n_embd, bias=False)

    def forward(self, x: Any, rotation: tuple[Any, Any], mask: Any) -> Any:
        """Mix `x` (rows, tokens, n_embd) along the tokens that `mask` lets through."""
        rows, tokens, _ = x.shape
        q = _rotate(self.q(x).view(rows, tokens, self.heads, self.size), rotation)
        k = _rotate(self.k(x).view(rows, tokens, self.kv_heads, self.size), rotation)
        v = self.v(x).view(rows, tokens, self.kv_heads, self.size)
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
        q, k, v = (t.transpose(1, 2).to(mask.dtype) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(rows, tokens, -1))


def _rotate(x: Any, rotation: tuple[Any, Any]) -> Any:
    cosine, sine = rotation
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Block(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """Attention, then a SwiGLU feed-forward, each on a normalised input and added back."""

    def __init__(self, shape: export.Shape) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_eps)
        self.attn = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_eps)
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Any, rotation: tuple[Any, Any], mask: Any) -> Any:
        """Return `x` after this layer."""
        x = x + self.attn(self.attn_norm(x), rotation, mask)
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """The llama architecture, with the output tied to the token embedding."""

    def __init__(self, shape: export.Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_eps)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                depth = (
                    math.sqrt(2 * shape.n_layer)
                    if name.endswith(("output.weight", "down.weight"))
                    else 1
                )
                nn.init.normal_(weight, std=0.5 / math.sqrt(weight.shape[1]) / depth)
        steps = torch.arange(0, shape.head_size, 2) / shape.head_size
        self.frequencies = shape.rope_base**-steps

    def forward(self, batch: Batch) -> Any:
        """Return the loss of `batch`, weighted token by token."""
        angles = batch.positions[..., None, None] * self.frequencies
        rotation = angles.cos(), angles.sin()
        same = batch.segments[:, :, None] == batch.segments[:, None, :]
        tokens = batch.inputs.shape[1]
        seen = same & torch.ones(tokens, tokens, dtype=torch.bool).tril()
        mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, -math.inf)[:, None]
        x = self.embedding(batch.inputs)
        for block in self.blocks:
            x = block(x, rotation, mask)
        wanted = batch.weights > 0
        logits = F.linear(self.norm(x)[wanted], self.embedding.weight).float()
        losses = F.cross_entropy(logits, batch.targets[wanted], reduction="none")
        weights = batch.weights[wanted]
        answers = weights == 1
        return (losses * weights).sum() / weights.sum(), losses[answers].mean().detach()

    def arrays(self) -> dict[str, Any]:
        """Return the weights under the names that llama.cpp gives them."""
        return {
            _gguf_name(name): weight.detach().float().numpy()
            for name, weight in self.state_dict().items()
        }

    def load(self, arrays: dict[str, Any]) -> None:
        """Take the weights that `arrays` gave."""
        state = self.state_dict()
        for name in state:
            state[name] = torch.tensor(arrays[_gguf_name(name)])
        self.load_state_dict(state)


_PARTS = {
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def _gguf_name(name: str) -> str:
    """Return llama.cpp's name for one of this network's weights."""
    name = name.removesuffix(".weight")
    if name.startswith("blocks."):
        _, number, part = name.split(".", 2)
        return f"blk.{number}.{_PARTS.get(part, part)}.weight"
    return {"embedding": "token_embd.weight", "norm": "output_norm.weight"}[name]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, what follows each, and which conversation and position each belongs to."""

    inputs: Any
    targets: Any
    weights: Any
    segments: Any
    positions: Any


class Packer:
    """Fills rows with whole conversations, the last of a row cut off."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._source = corpus.conversations(seed)
        self._rng = random.Random(seed + 1)

    def _encoded(self) -> Iterator[tuple[list[int], float]]:
        """Yield the next conversation piece by piece, each with its weight in the loss."""
        rng = self._rng
        dropout = DROPOUT if rng.random() < DROPOUT_SHARE else 0.0
        for text, wanted in chatml.render(next(self._source)):
            if wanted:
                yield self._tokenizer.encode(text), 1.0
            else:
                yield self._tokenizer.encode(text, dropout=dropout, rng=rng), USER_WEIGHT

    def batch(self, rows: int, length: int) -> Batch:
        """Return `rows` rows of `length` tokens each."""
        shape = rows, length + 1
        ids: Any = np.zeros(shape, dtype=np.int64)
        segments: Any = np.zeros_like(ids)
        positions: Any = np.zeros_like(ids)
        weights: Any = np.zeros(shape, dtype=np.float32)
        for row in range(rows):
            at = segment = 0
            while at < length:
                for piece, value, position in self._placed(export.SHAPE.n_ctx - length - 1):
                    end = min(length + 1, at + len(piece))
                    count = end - at
                    ids[row, at:end] = piece[:count]
                    weights[row, at:end] = value
                    segments[row, at:end] = segment
                    positions[row, at:end] = np.arange(position, position + count)
                    at = end
                    if at > length:
                        break
                segment += 1
        # The first token of a conversation follows nothing.
        weights[:, 1:][segments[:, 1:] != segments[:, :-1]] = 0
        t = torch.from_numpy
        return Batch(
            inputs=t(ids[:, :-1]),
            targets=t(ids[:, 1:]),
            weights=t(weights[:, 1:]),
            segments=t(segments[:, :-1]),
            positions=t(positions[:, :-1]).float(),
        )

    def _placed(self, spare: int) -> Iterator[tuple[list[int], float, int]]:
        """Yield the pieces of the next conversation with their weights and positions.

        Gaps of up to `spare` positions in all let short rows teach the distances of long talks.
        """
        rng = self._rng
        spare = spare if rng.random() < 0.3 else 0
        position = 0
        for piece, weight in self._encoded():
            if spare and rng.random() < 0.3:
                gap = rng.randrange(spare)
                position, spare = position + gap, spare - gap
            yield piece, weight, position
            position += len(piece)


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch is Any to mypy
    """Momentum made orthogonal, for weight matrices (after K. Jordan's Muon, 2024).

    On so short a training it needs about half the steps of Adam.
    """

    def __init__(self, weights: list[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": 0.01})

    def step(self, closure: Any = None) -> None:
        """Update every weight from its gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    self._update(weight, group)

    def _update(self, weight: Any, group: dict[str, Any]) -> None:
        velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
        velocity.lerp_(weight.grad, 1 - group["momentum"])
        update = _orthogonal(weight.grad.lerp(velocity, group["momentum"]))
        weight.mul_(1 - group["lr"] * group["decay"])
        scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
        weight.add_(update, alpha=-group["lr"] * scale)


def _orthogonal(matrix: Any) -> Any:
    """Return the matrix with its singular values brought near 1 (five Newton-Schulz steps)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 60)
    cool = min(1.0, (steps - step) / (0.5 * steps))
    return warm * cool


@dataclass(frozen=True)
class Run:
    """What to train: how long, how fast, with how many processes, and where the GGUF goes.

    With `start`, a GGUF made here, its weights and vocabulary are trained on.
    """

    steps: int
    rate: float
    start: Path | None
    out: Path
    workers: int
    save_every: int


def run(settings: Run) -> None:
    """Train and write the GGUF.

    Every worker is a process with one thread and its own share of each step's rows. They meet once
    a step, so a machine with other work to do slows them far less than threads that meet in every
    matrix product.
    """
    started = time.monotonic()
    if settings.start:
        tokenizer = export.read_gguf(settings.start)[1]
    else:
        tokenizer = train(corpus.vocabulary_texts(SEED, 12000), export.SHAPE.n_vocab)
    print(f"vocabulary: {tokenizer.size} tokens, {time.monotonic() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        torch.multiprocessing.spawn(
            _work, args=(settings, tokenizer, meeting), nprocs=settings.workers, daemon=True
        )
    size = settings.out.stat().st_size / 1e6
    print(f"{settings.out}: {size:.2f} MB after {time.monotonic() - started:.0f} s")


def _work(rank: int, settings: Run, tokenizer: Tokenizer, meeting: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    workers, steps = settings.workers, settings.steps
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    started = time.monotonic()
    model = Llama(export.SHAPE)
    if settings.start:
        model.load(export.read_gguf(settings.start)[0])
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embedding" in n]
    optimisers = (
        Muon(matrices, lr=0.02),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.98), weight_decay=0.0),
    )
    rates = [o.param_groups[0]["lr"] for o in optimisers]
    # Training on shall not begin with the same conversations.
    packer = Packer(tokenizer, SEED + 100 * rank + bool(settings.start))
    order = random.Random(SEED)
    seen, recent = 0, []
    for step in range(steps):
        rows, length = (4, 1024) if order.random() < 0.12 else (16, 256)
        batch = packer.batch(rows // workers, length)
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * settings.rate * _rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss, answers = model(batch)
        loss.backward()
        _share(model, workers)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        seen += rows * length
        recent.append(float(answers))
        done = step + 1
        if rank == 0 and done % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {done}/{steps} loss of answers {sum(recent) / len(recent):.4f} "
                f"{seen / seconds:.0f} tokens/s {seconds:.0f} s",
                flush=True,
            )
            recent = []
        if rank == 0 and (
            done == steps or (settings.save_every and done % settings.save_every == 0)
        ):
            export.write_gguf(settings.out, model.arrays(), tokenizer)
    dist.destroy_process_group()


def _share(model: Llama, workers: int) -> None:
    """Give every worker the mean of all workers' gradients."""
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= workers
    at = 0
    for grad in grads:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--steps", type=int, default=3000, help="steps of 4096 tokens")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--start", type=Path, help="train on from this GGUF")
    parser.add_argument("--out", type=Path, default=model_path(), help="the GGUF to write")
    parser.add_argument("--workers", type=int, choices=(1, 2, 4), default=2, help="processes")
    parser.add_argument("--save-every", type=int, default=0, help="also write after so many steps")
    args = parser.parse_args()
    # The workers end with this process only when it ends in Python's own way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(Run(args.steps, args.rate, args.start, args.out, args.workers, args.save_every))


if __name__ == "__main__":
    main()
