"""The models: dense and mixtures of experts, 0.5B to 405B, one with a window, one with a state.

Dimensions are those of config.json of the repository named beside each on huggingface.co; tensors
and keys those that llama.cpp 0c1e570 makes of it (conversion/) and loads (src/models/).
"""

from __future__ import annotations

from dataclasses import replace

from tests.architectures.blocks import (
    ATTENTION,
    DELTA_NET,
    EXPERTS,
    GATED_FFN,
    OUTPUT,
    POST_NORMS,
    QK_NORMS,
    SHARED_EXPERT,
    Architecture,
    Sizes,
    biased,
    join,
    without,
)
from tests.architectures.dense import QKV_BIASES, TIED, dense
from tests.architectures.experts import WIDE_EXPERTS
from tests.shapes.shape import USUAL_QUANTS, Shape

_WITH_F16 = (*USUAL_QUANTS, "F16")


def _llama3(n_layers: int, sizes: Sizes, ends: str = OUTPUT) -> Architecture:
    """Llama 3.1 and 3.2, with the table that stretches their rotary frequencies."""
    common = replace(
        sizes, kv_heads=8, vocab=128256, ctx=131072, extra={"half_head": sizes.head // 2}
    )
    ends = f"{ends}, rope_freqs half_head"
    return dense("llama", ATTENTION, GATED_FFN, ends=ends, n_layers=n_layers, sizes=common)


# meta-llama/Llama-3.2-1B-Instruct, Llama-3.1-8B-Instruct, -70B-Instruct and -405B-Instruct.
_LLAMA3 = (
    Shape("1b", "Llama-3.2-1B-Instruct",
          _llama3(16, Sizes(embd=2048, ff=8192, heads=32, head=64), TIED), _WITH_F16),
    Shape("8b", "Llama-3.1-8B-Instruct",
          _llama3(32, Sizes(embd=4096, ff=14336, heads=32, head=128)), _WITH_F16),
    Shape("70b", "Llama-3.1-70B-Instruct",
          _llama3(80, Sizes(embd=8192, ff=28672, heads=64, head=128))),
    Shape("405b", "Llama-3.1-405B-Instruct",
          _llama3(126, Sizes(embd=16384, ff=53248, heads=128, head=128))),
)  # fmt: skip

# Qwen/Qwen2.5-0.5B-Instruct, Qwen/Qwen2.5-32B-Instruct, Qwen/Qwen3-4B.
_QWEN = (
    Shape("0.5b", "Qwen2.5-0.5B-Instruct",
          dense("qwen2", ATTENTION, QKV_BIASES, GATED_FFN, ends=TIED, n_layers=24,
                sizes=Sizes(embd=896, vocab=151936, ctx=32768, ff=4864,
                            heads=14, kv_heads=2, head=64)), _WITH_F16),
    Shape("32b", "Qwen2.5-32B-Instruct",
          dense("qwen2", ATTENTION, QKV_BIASES, GATED_FFN, n_layers=64,
                sizes=Sizes(embd=5120, vocab=152064, ctx=32768, ff=27648,
                            heads=40, kv_heads=8, head=128))),
    Shape("4b", "Qwen3-4B",
          dense("qwen3", ATTENTION, QK_NORMS, GATED_FFN, ends=TIED, n_layers=36,
                sizes=Sizes(embd=2560, vocab=151936, ctx=40960, ff=9728,
                            heads=32, kv_heads=8, head=128)), _WITH_F16),
)  # fmt: skip

# google/gemma-3-12b-it: five layers of six see 1,024 tokens, which is llama.cpp's own default
# for the architecture.
_GEMMA = Shape(
    "12b-swa",
    "gemma-3-12b-it",
    dense("gemma3", ATTENTION, POST_NORMS, GATED_FFN, QK_NORMS, ends=TIED, n_layers=48,
          keys={"attention.sliding_window": 1024},
          sizes=Sizes(embd=3840, vocab=262208, ctx=131072, ff=15360,
                      heads=16, kv_heads=8, head=256)),
)  # fmt: skip

# mistralai/Mixtral-8x7B-Instruct-v0.1
_MIXTRAL = Shape(
    "8x7b",
    "Mixtral-8x7B-Instruct-v0.1",
    dense("llama", ATTENTION, "ffn_norm embd", WIDE_EXPERTS, n_layers=32,
          sizes=Sizes(embd=4096, vocab=32000, ctx=32768, ff=14336, heads=32, kv_heads=8, head=128,
                      experts=8, experts_used=2, ff_exp=14336)),
)  # fmt: skip

# Qwen/Qwen3-30B-A3B
_QWEN3_MOE = Shape(
    "30b-a3b",
    "Qwen3-30B-A3B",
    dense("qwen3moe", ATTENTION, QK_NORMS, "ffn_norm embd", EXPERTS, n_layers=48,
          sizes=Sizes(embd=2048, vocab=151936, ctx=40960, ff=6144, heads=32, kv_heads=4, head=128,
                      experts=128, experts_used=8, ff_exp=768)),
)  # fmt: skip

# openai/gpt-oss-120b: trained in MXFP4, and published in it alone. Every second layer sees 128
# tokens; every tensor of an expert has a bias, and every head a sink.
_GPT_OSS = Shape(
    "120b-moe",
    "gpt-oss-120b",
    dense("gpt-oss", biased(without(ATTENTION, "attn_norm")),
          "attn_norm embd, attn_sinks heads, post_attention_norm embd", EXPERTS,
          "ffn_gate_inp.bias experts, ffn_gate_exps.bias ff_exp experts",
          "ffn_up_exps.bias ff_exp experts, ffn_down_exps.bias embd experts", n_layers=36,
          keys={"attention.sliding_window": 128},
          sizes=Sizes(embd=2880, vocab=201088, ctx=131072, ff=2880, heads=64, kv_heads=8, head=64,
                      experts=128, experts_used=4, ff_exp=2880)),
    ("MXFP4",),
)  # fmt: skip

# Qwen/Qwen3-Next-80B-A3B-Instruct: three layers of four keep a state (a gated delta net), the
# fourth has attention, whose queries come with a gate of their own width.
_NEXT_EXPERTS = join("post_attention_norm embd", EXPERTS, SHARED_EXPERT, "ffn_gate_inp_shexp embd")
_NEXT_STATE = join(DELTA_NET, "ssm_ba embd 2*dt", _NEXT_EXPERTS)
_NEXT_ATTENTION = join(without(ATTENTION, "attn_q"), "attn_q embd 2*q", QK_NORMS, _NEXT_EXPERTS)
_QWEN3_NEXT = Shape(
    "80b-a3b",
    "Qwen3-Next-80B-A3B-Instruct",
    Architecture("qwen3next", (_NEXT_STATE, _NEXT_STATE, _NEXT_STATE, _NEXT_ATTENTION) * 12,
                 keys={"full_attention_interval": 4},
                 sizes=Sizes(embd=2048, vocab=151936, ctx=262144, ff=5120,
                             heads=16, kv_heads=2, head=256, rope=64,
                             experts=512, experts_used=10, ff_exp=512, ff_shexp=512,
                             inner=4096, state=128, dt=32, groups=16)),
)  # fmt: skip

_ALL = (*_LLAMA3, *_QWEN, _GEMMA, _MIXTRAL, _QWEN3_MOE, _GPT_OSS, _QWEN3_NEXT)

#: By id.
SHAPES: dict[str, Shape] = {shape.id: shape for shape in _ALL}
