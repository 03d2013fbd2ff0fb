"""What a plan concedes, and the price of it: how plans are weighed against each other.

The ladder, for when not everything fits. Each rung is a concession; its price stands in
profiles/policy.yaml, in percent of perplexity, and the plan with the lowest sum is chosen.

    1. KV q8_0                    price_kv_q8_0
    2. a smaller context          price_context_halving of the goal, each halving
    3. a smaller quantization     the perplexity that llama.cpp publishes for it
    4. experts on the host        price_leaving_device, and the speed that it costs
    5. layers on the host         the same
    6. the host alone             the same
    7. does not fit               refused: exit code 7 and the smallest change that would fit

Speed has a price of its own, whatever it is lost to: steep below the goal's least, clear below
what is comfortable, slight above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from localllm.profiles import Goal, Policy
from localllm.quants import find_quant, ladder

#: llama.cpp's table of perplexities is of a Llama-3-8B, whose own is this (wiki.test, F16:
#: tools/perplexity/README.md).
_BASE_PERPLEXITY = 6.2331

#: What an architecture is trained in loses nothing, being all that there ever was: gpt-oss's
#: experts (openai/gpt-oss, model card), BitNet's ternary weights (ggml-org/llama.cpp #11183).
_TRAINED_IN = {"gpt-oss": ("MXFP4",), "bitnet": ("TQ1_0", "TQ2_0")}


@dataclass(frozen=True)
class Concession:
    """One thing that a plan gives up, and at what price.

    `rung` is its number on the ladder; 0 where it is speed that no rung was conceded for.
    """

    rung: int
    price: float
    because: str


@dataclass(frozen=True)
class Merits:
    """What a plan is weighed by.

    Attributes:
        quality_loss: perplexity added by the quantization, as a share.
        type_k: of the KV cache.
        n_ctx: tokens of one slot; n_ctx_wished: what would have been enough.
        rung: 0 where everything is on devices that are faster than the host (or there are none),
            else 4, 5 or 6.
        tokens_per_second: of decoding; None where it cannot be estimated.
        slow_device: one that is used though it is slower than the host; "" for none.
    """

    quality_loss: float
    type_k: str
    n_ctx: int
    n_ctx_wished: int
    rung: int = 0
    tokens_per_second: float | None = None
    slow_device: str = ""


def quality_loss(quant: str | None, architecture: str | None = None) -> float | None:
    """Perplexity that a quantization adds, as a share of the model's own; None where unknown.

    Without a figure of its own (Unsloth's UD-, _XL, _L), the figure of the next rung below
    counts, which is at worst too pessimistic.
    """
    rung = find_quant(quant) if quant else None
    if rung is None or rung.fork_only:
        return None
    if rung.name.startswith(_TRAINED_IN.get(architecture or "", ("-",))):
        return 0.0
    rungs = ladder()
    for below in rungs[rungs.index(rung) :]:
        added = below.ppl_increase
        if added is None:
            added = below.ppl_increase_imatrix
        if added is not None:
            return added / _BASE_PERPLEXITY
    return None


def concessions(
    merits: Merits, goal: Goal, policy: Policy, *, speed_first: bool
) -> tuple[Concession, ...]:
    """Everything that a plan gives up against the best that can be thought of."""
    found = []
    loss = 100 * merits.quality_loss
    if merits.type_k != "f16" and merits.type_k not in _WIDE:
        price = policy.price_kv_q8_0 * _KV_WEIGHTS.get(merits.type_k, 1.0)
        found.append(Concession(1, price, f"{merits.type_k} cache"))
    if merits.n_ctx < merits.n_ctx_wished:
        halvings = math.log2(merits.n_ctx_wished / merits.n_ctx)
        because = f"context {merits.n_ctx:,}"
        found.append(Concession(2, goal.price_context_halving * halvings, because))
    if loss:
        found.append(Concession(3, loss, f"{loss:.1f} % loss"))
    if merits.rung:
        because = _LEAVING[merits.rung]
        if merits.slow_device:
            because = f"layers on {merits.slow_device}, slower than the host"
        found.append(Concession(merits.rung, policy.price_leaving_device, because))
    if merits.tokens_per_second is not None:
        price = speed_price(merits.tokens_per_second, goal, policy)
        if speed_first:
            price *= policy.speed_first_factor
        if price:
            because = f"{merits.tokens_per_second:.3g} tok/s"
            found.append(Concession(merits.rung, price, because))
    return tuple(found)


def speed_price(tokens_per_second: float, goal: Goal, policy: Policy) -> float:
    """The price of being no faster than this: a line in halvings, steeper the slower it gets."""
    speed = max(tokens_per_second, 1e-6)
    price = 0.0
    for upper, lower, each in (
        (policy.speed_plenty, goal.speed_comfortable, policy.price_fast_halving),
        (goal.speed_comfortable, goal.speed_least, policy.price_slow_halving),
        (goal.speed_least, 0.0, policy.price_unusable_halving),
    ):
        if speed < upper:
            price += each * max(0.0, math.log2(upper / max(speed, lower)))
    return price


#: Cache types that give nothing up.
_WIDE = ("f32", "bf16")
#: How much more than q8_0's a narrower cache type's price is, in the order of the perplexities
#: published in ggml-org/llama.cpp #7412. A rough guide: they are used only when asked for.
_KV_WEIGHTS = {"q5_1": 3.0, "q5_0": 4.0, "q4_1": 12.0, "q4_0": 15.0, "iq4_nl": 12.0}
_LEAVING = {
    4: "experts on the host",
    5: "layers on the host",
    6: "nothing on the accelerator",
}
