"""Plans against a card: what was predicted, what was taken, and whether one layer more would do.

For each card and model: plan, run with a full context, learn from the canary, plan again, run
again, then try the neighbours of the plan. It knows how to ask and what to compare; cards are
cards.py's, files models.py's.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from benchmarks.gpu.cards import Card
from localllm import paths
from localllm.engine import canary
from localllm.engine.argv import run_argv
from localllm.engine.client import http_client
from localllm.engine.dryrun import dry_run
from localllm.engine.locate import require_tools
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError, LocalllmError
from localllm.hub.localfile import Opened, open_model
from localllm.plan import Candidate, Device, Plan
from localllm.planner import Wishes, choose
from localllm.planner.placement import Placement, expert_overrides, steps
from localllm.probe import probe
from localllm.probe.process import process_memory
from localllm.profiles import load_policy

#: After the canary, a prediction is good within the larger of these of what was taken.
GOOD_SHARE = 0.02
GOOD_BYTES = 256 << 20
#: As llama.cpp and CUDA say it, while loading and while running.
_OUT_OF_MEMORY = re.compile(r"out of memory|(unable|failed) to allocate", re.IGNORECASE)
_POLL_SECONDS = 0.01
#: Memory comes back a moment after a process has ended; all but what a server keeps for itself.
_SETTLE_SECONDS = 10.0
_SETTLED_BYTES = 16 << 20
_CANARY_SECONDS = 120.0
_ANSWER_SECONDS = 540.0
_N_DECODED = 64
#: The speed forecast is for half of the least context of a chat.
_N_PROMPT_SHORT = 1024
#: An address of the card for the canary, which asks by address.
_ADDRESS = "card"


@dataclass(frozen=True)
class Run:
    """One run of a plan. Bytes are those of the card.

    Attributes:
        n_gpu_layers, n_ctx, type_k, overrides: of the plan.
        predicted_bytes: all that the plan says it takes there.
        peak_bytes: all that it took there, at its most.
        outcome: "ran", "out of memory" or "failed".
        said: the engine's own word where it did not run, the canary's where it learned nothing.
        extra_bytes: by device, what the canary saw beyond the dry run.
        estimated, measured: tokens per second, "decode" and "prompt".
    """

    n_gpu_layers: int
    n_ctx: int
    type_k: str
    overrides: tuple[str, ...]
    predicted_bytes: int
    peak_bytes: int
    outcome: str
    said: str = ""
    extra_bytes: Mapping[str, int] = field(default_factory=dict)
    estimated: Mapping[str, float | None] = field(default_factory=dict)
    measured: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def error_bytes(self) -> int:
        """Predicted less taken."""
        return self.predicted_bytes - self.peak_bytes

    @property
    def is_good(self) -> bool:
        """Whether it ran, and took what was predicted."""
        allowed = max(GOOD_BYTES, GOOD_SHARE * self.peak_bytes)
        return self.outcome == "ran" and abs(self.error_bytes) <= allowed


def check(
    card: Card, path: Path, n_vocab: int, goal: str, n_ctx: int | None, n_tries: int
) -> dict[str, Any]:
    """Everything about one model on one card, as the document that is kept of it.

    `steps_to_spare` is how many more layers (or layers' experts) than planned have worked: 0 is
    perfect, negative is too bold; None where nothing ran.

    Args:
        card: with nothing else on it.
        path: the model.
        n_vocab: its tokens are 0 to n_vocab - 1.
        goal: of the policy.
        n_ctx: the context to insist on; None leaves it to the planner.
        n_tries: how far from the plan the neighbours are tried.
    """
    started = time.monotonic()
    opened = open_model(path, str(path), "file")
    try:
        first = planned(card, opened, goal, n_ctx)
    except LocalllmError as exc:
        return {"refused": exc.message, "size_bytes": card.size_bytes}
    runs = [run(card, first, n_vocab)]
    try:
        plan = planned(card, opened, goal, n_ctx, runs[0].extra_bytes)
    except LocalllmError as exc:
        refused = f"after the canary: {exc.message}"
        return {"refused": refused, "size_bytes": card.size_bytes, "first": asdict(runs[0])}
    same = run_argv(plan) == run_argv(first)
    if same and runs[0].outcome == "ran":
        # Nothing but the prediction has changed: one run answers for both.
        runs.append(replace(runs[0], predicted_bytes=_predicted(plan, card)))
    else:
        runs.append(run(card, plan, n_vocab))
    tries, spare = neighbours(card, plan, opened, n_vocab, runs[1].outcome == "ran", n_tries)
    return {
        "size_bytes": card.size_bytes,
        "where": next((v.where for v in plan.verdicts if v.fits), ""),
        "first": asdict(runs[0]),
        "second": asdict(runs[1]),
        "same_plan": same,
        "is_good": runs[1].is_good,
        "tries": [asdict(each) for each in tries],
        "steps_to_spare": spare,
        "seconds": time.monotonic() - started,
    }


def planned(
    card: Card,
    opened: Opened,
    goal: str,
    n_ctx: int | None,
    extra_bytes: Mapping[str, int] | None = None,
) -> Plan:
    """The plan for this machine with this card, as `localllm plan` makes it.

    Raises:
        LocalllmError: it does not fit.
    """
    policy = load_policy(paths.shipped_profiles_dir())
    hardware, _ = probe(paths.models_dir())
    candidate = Candidate(opened.model.quant or "this", opened.model, opened.weights)
    with dry_run({opened.model.path: opened.outlines}) as oracle:
        seen = None if oracle is None else card.seen_by(oracle)
        wishes = Wishes(n_ctx=n_ctx, rpc=card.rpc)
        return choose(hardware, [candidate], policy, wishes, policy.goal(goal), seen, extra_bytes)


def neighbours(
    card: Card, plan: Plan, opened: Opened, n_vocab: int, worked: bool, n_tries: int
) -> tuple[list[Run], int | None]:
    """Runs with more and more on the card until one fails, or with less until one works.

    Returns:
        The runs, and how many steps more than planned have worked.
    """
    every = steps(opened.weights)  # from all on the card to hardly anything
    n_layers = opened.weights.n_layers
    at = next(
        (
            number
            for number, step in enumerate(every)
            if step.n_gpu_layers == plan.n_gpu_layers
            and expert_overrides(step, n_layers) == plan.tensor_overrides
        ),
        None,
    )
    runs: list[Run] = []
    spare = 0 if worked else None
    for n in range(1, n_tries + 1):
        number = -1 if at is None else at - n if worked else at + n
        if not 0 <= number < len(every):
            break
        step = every[number]
        placement = Placement((card.device,), step, (step.n_gpu_layers,))
        neighbour = replace(placement.applied(plan, n_layers), memory=())  # nothing was asked
        runs.append(run(card, neighbour, n_vocab, learn=False))
        if runs[-1].outcome == "ran":
            spare = n if worked else -n
        if (runs[-1].outcome == "ran") != worked:
            break
    return runs, spare


def run(card: Card, plan: Plan, n_vocab: int, *, learn: bool = True) -> Run:
    """Starts the plan's server, fills its context, and watches the card meanwhile.

    Args:
        card: with nothing else on it.
        plan: what to run.
        n_vocab: of the model.
        learn: measure the canary and the speeds, too.
    """
    before = _settled(card)
    seen = Run(plan.n_gpu_layers, plan.n_ctx, plan.type_k, plan.tensor_overrides,
               _predicted(plan, card), 0, "ran",
               estimated={"decode": plan.speed.decode_tokens_per_second,
                          "prompt": plan.speed.prompt_tokens_per_second})  # fmt: skip
    with _Peak(card) as peak:
        try:
            with LlamaServer(require_tools(), plan, extra_argv=canary.EXTRA_ARGV) as server:
                try:
                    if learn:
                        seen = _learned(card, before, server, plan, seen)
                    seen = replace(seen, measured=_speeds(server, plan, n_vocab, short=learn))
                except (EngineError, httpx.HTTPError) as exc:
                    server.explain_death()  # waits until its log is whole
                    seen = failed(seen, str(exc), server.log())
        except LocalllmError as exc:
            seen = failed(seen, exc.message, exc.detail or "")
    seen = replace(seen, peak_bytes=peak.used_bytes - before)
    if seen.outcome == "ran" and card.is_overfull(seen.peak_bytes):
        seen = replace(seen, outcome="out of memory")
    return seen


def _learned(card: Card, before: int, server: LlamaServer, plan: Plan, seen: Run) -> Run:
    """The run with what the canary saw, as `localllm serve` would learn it."""
    outcome = canary.measure(
        server,
        plan,
        limit_seconds=_CANARY_SECONDS,
        host_used=process_memory,
        # Of the whole card: nobody else is on it, and process ids differ between containers.
        gpu_used=lambda _: {_ADDRESS: card.used_bytes() - before},
        devices=[Device(card.device, pci_bus_id=_ADDRESS)],
    )
    extra = dict(outcome.measurement.extra_bytes) if outcome.measurement else {}
    return replace(seen, extra_bytes=extra, said=" ".join(outcome.notes))


def _speeds(server: LlamaServer, plan: Plan, n_vocab: int, *, short: bool) -> dict[str, float]:
    """Tokens per second of a short conversation and of a prompt that fills a slot."""
    n_slot = plan.n_ctx // plan.n_parallel
    measured = {}
    with http_client(server.require_endpoint(), _ANSWER_SECONDS) as client:
        if short:
            n_prompt = min(_N_PROMPT_SHORT, n_slot - _N_DECODED - 1)
            answer = _completion(client, n_prompt, n_vocab)
            measured["decode"] = answer["predicted_per_second"]
        answer = _completion(client, n_slot - _N_DECODED - 1, n_vocab)
    return {
        **measured,
        "prompt": answer["prompt_per_second"],
        "decode, context full": answer["predicted_per_second"],
    }


def _completion(client: httpx.Client, n_prompt: int, n_vocab: int) -> dict[str, float]:
    """llama-server's timings of a prompt of so many tokens.

    Raises:
        EngineError: it is not what was asked for.
    """
    body = {
        # From all over the vocabulary, but for its last tokens, which are control tokens.
        "prompt": [index * 2654435761 % (n_vocab - 8) for index in range(n_prompt)],
        "n_predict": _N_DECODED,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    response = client.post("/completion", json=body)
    answer = response.json() if response.status_code == 200 else {}
    timings: dict[str, float] = answer.get("timings", {})
    if (timings.get("prompt_n"), timings.get("predicted_n")) != (n_prompt, _N_DECODED):
        raise EngineError(f"a prompt of {n_prompt} tokens: {response.text[:300]}")
    return timings


def failed(seen: Run, sentence: str, log: str) -> Run:
    """The run that ended with this sentence and this log."""
    out = _OUT_OF_MEMORY.search(f"{sentence}\n{log}")
    return replace(seen, outcome="out of memory" if out else "failed", said=sentence)


def _predicted(plan: Plan, card: Card) -> int:
    return sum(row.total_bytes for row in plan.memory if row.device == card.device)


def _settled(card: Card) -> int:
    """What is used of the card once the run before has given its memory back."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    used = card.used_bytes()
    while used > card.idle_bytes + _SETTLED_BYTES and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        used = card.used_bytes()
    return used


class _Peak:
    """The most that is used of a card while the block lasts."""

    def __init__(self, card: Card) -> None:
        self.used_bytes = 0
        self._card = card
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self.used_bytes = max(self.used_bytes, self._card.used_bytes())
