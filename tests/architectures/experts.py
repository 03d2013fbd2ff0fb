"""Architectures with mixtures of experts, latent attention and layers that predict further."""

from __future__ import annotations

from tests.architectures.blocks import (
    ATTENTION,
    EXPERT_BIAS,
    EXPERTS,
    FUSED_ATTENTION,
    GATED_FFN,
    INDEXER,
    LATENT_ATTENTION,
    NEXTN,
    POST_NORMS,
    QK_NORMS,
    SHARED_EXPERT,
    Architecture,
    Sizes,
    biased,
    join,
    without,
)
from tests.architectures.dense import (
    ALTERNATING,
    BIASED_OUTPUT,
    LOGIT_SCALE,
    MHA,
    QKV_BIASES,
    SECTIONS,
    TIED,
    WINDOW,
    dense,
)

#: Experts as wide as feed_forward_length says.
WIDE_EXPERTS = EXPERTS.replace("ff_exp", "ff")
_MOE = join("ffn_norm embd", EXPERTS)
_WIDE_MOE = join("ffn_norm embd", WIDE_EXPERTS)
_SHARED_MOE = join(_MOE, SHARED_EXPERT)
_BIASED_SHARED_MOE = join(_SHARED_MOE, EXPERT_BIAS)
_GATED_SHARED_MOE = join(EXPERTS, SHARED_EXPERT, "ffn_gate_inp_shexp embd")
_LATENT_DENSE = join(LATENT_ATTENTION, GATED_FFN)
_LATENT_MOE = join(LATENT_ATTENTION, _BIASED_SHARED_MOE)
#: MLA as old conversions have it: keys and values are expanded, and cached in full.
EXPANDED_LATENT_ATTENTION = (
    "attn_norm embd, attn_q_a embd q_rank, attn_q_a_norm q_rank, attn_q_b q_rank heads*head, "
    "attn_kv_a_mqa embd kv_rank+rope, attn_kv_a_norm kv_rank, "
    "attn_kv_b kv_rank heads*nope+heads*head_v, attn_output heads*head_v embd"
)
_EXPANDED = Sizes(kv_heads=4, head=64, head_v=32, rope=32)
_GPT_OSS_MOE = join(
    "post_attention_norm embd, ffn_gate_inp.bias experts, ffn_gate_exps.bias ff_exp experts",
    "ffn_up_exps.bias ff_exp experts, ffn_down_exps.bias embd experts",
    EXPERTS,
)

MOE = (
    dense("llama", ATTENTION, _WIDE_MOE, variant="moe", sizes=Sizes(experts=8)),
    dense("grok", ATTENTION, "attn_output_norm embd, post_ffw_norm embd", _MOE,
          cannot={"q8_0 cache": "it has no flash attention, which a quantized V cache needs"}),
    dense("dbrx", FUSED_ATTENTION, "attn_output_norm embd", WIDE_EXPERTS,
          keys={"attention.clamp_kqv": 8.0}),
    dense("qwen2moe", ATTENTION, QKV_BIASES, "ffn_norm embd", _GATED_SHARED_MOE),
    dense("qwen3moe", ATTENTION, QK_NORMS, _MOE),
    dense("qwen3vlmoe", ATTENTION, QK_NORMS, _MOE, keys=SECTIONS),
    dense("phimoe", biased("attn_norm embd"),
          without(biased(ATTENTION), "attn_norm", "attn_norm.bias"),
          biased("ffn_norm embd"), WIDE_EXPERTS, ends=f"{BIASED_OUTPUT}, output.bias vocab"),
    dense("olmoe", ATTENTION, "attn_q_norm q, attn_k_norm q", _WIDE_MOE, sizes=MHA),
    dense("arctic", ATTENTION, "ffn_norm embd, ffn_gate embd embd, ffn_up embd embd",
          "ffn_down embd embd, ffn_norm_exps embd", WIDE_EXPERTS),
    Architecture("deepseek", (join(ATTENTION, GATED_FFN), join(ATTENTION, _SHARED_MOE))),
    Architecture("deepseek2-ocr", (join(ATTENTION, GATED_FFN), join(ATTENTION, _SHARED_MOE)),
                 sizes=MHA),
    dense("granitemoe", ATTENTION, _WIDE_MOE, SHARED_EXPERT, keys=LOGIT_SCALE),
    dense("bailingmoe", ATTENTION, _SHARED_MOE),
    Architecture("bailingmoe2", (
        join(FUSED_ATTENTION, QK_NORMS, GATED_FFN),
        join(FUSED_ATTENTION, QK_NORMS, _BIASED_SHARED_MOE),
        join(FUSED_ATTENTION, QK_NORMS, _BIASED_SHARED_MOE, NEXTN, "layer_output_norm embd"),
    )),
    Architecture("dots1", (join(ATTENTION, QK_NORMS, GATED_FFN),
                           join(ATTENTION, QK_NORMS, _BIASED_SHARED_MOE)), sizes=MHA),
    Architecture("ernie4_5-moe", (join(ATTENTION, GATED_FFN),
                                  join(ATTENTION, _BIASED_SHARED_MOE)),
                 keys={"interleave_moe_layer_step": 1}),
    dense("hunyuan-moe", ATTENTION, QK_NORMS, _WIDE_MOE, SHARED_EXPERT),
    dense("llada-moe", ATTENTION, QK_NORMS, _MOE, sizes=MHA),
    dense("rnd1", ATTENTION, QK_NORMS, _MOE),
    dense("grovemoe", ATTENTION, QK_NORMS, _MOE,
          "ffn_gate_chexps embd head 2, ffn_up_chexps embd head 2, ffn_down_chexps head embd 2",
          keys={"expert_group_scale": 0.05, "experts_per_group": 2}),
    dense("minimax-m2", ATTENTION, "attn_q_norm q, attn_k_norm k", _WIDE_MOE, EXPERT_BIAS),
    Architecture("hy_v3", (
        join(ATTENTION, QK_NORMS, GATED_FFN),
        join(ATTENTION, QK_NORMS, _SHARED_MOE, "exp_probs_b! experts"),
        join(ATTENTION, QK_NORMS, _SHARED_MOE, "exp_probs_b! experts", NEXTN),
    )),
    # Every tensor of an expert's has a bias, and every head a sink.
    dense("gpt-oss", biased(without(ATTENTION, "attn_norm")), "attn_norm embd, attn_sinks heads",
          _GPT_OSS_MOE, keys=WINDOW),
)  # fmt: skip

WINDOWED_MOE = (
    # Chunked attention, and a shared expert of the experts' own width.
    Architecture("llama4", (join(ATTENTION, GATED_FFN), join(ATTENTION, _SHARED_MOE)) * 2,
                 keys={"interleave_moe_layer_step": 2}),
    Architecture("afmoe", tuple(
        join(ATTENTION, QK_NORMS, POST_NORMS, "attn_gate embd q", ffn)
        for ffn in (GATED_FFN, *[_BIASED_SHARED_MOE] * 3)
    ), keys=WINDOW),
    Architecture("laguna", tuple(
        join(ATTENTION, QK_NORMS, "attn_gate embd heads", ffn)
        for ffn in (GATED_FFN, *[_BIASED_SHARED_MOE] * 3)
    ), keys=WINDOW),
    Architecture("exaone-moe", (
        join(ATTENTION, QK_NORMS, GATED_FFN),
        *[join(ATTENTION, QK_NORMS, _BIASED_SHARED_MOE)] * 3,
        join(ATTENTION, QK_NORMS, GATED_FFN, NEXTN),
    ), keys=WINDOW),
    Architecture("cohere2moe", (
        join(ATTENTION, without(GATED_FFN, "ffn_norm")),
        *[join(ATTENTION, EXPERTS, SHARED_EXPERT)] * 3,
        join(ATTENTION, EXPERTS, SHARED_EXPERT, NEXTN),
    ), ends=TIED, keys={**WINDOW, **LOGIT_SCALE}),
    dense("smallthinker", ATTENTION, _MOE, n_layers=4, keys=WINDOW),
    dense("mellum", ATTENTION, QK_NORMS, _MOE, n_layers=4, keys=WINDOW),
    dense("maple", ATTENTION, QK_NORMS, _MOE, keys={**ALTERNATING, "swiglu_clamp_exp": 7.0}),
    # Values are narrower than keys.
    Architecture("mimo2", (join(ATTENTION, "attn_sinks heads", GATED_FFN),
                           join(ATTENTION, _MOE, EXPERT_BIAS)),
                 sizes=Sizes(head=64, head_v=32), keys=ALTERNATING),
    Architecture("step35", (
        join(ATTENTION, QK_NORMS, "attn_gate embd heads", GATED_FFN),
        join(ATTENTION, QK_NORMS, "attn_gate embd heads", _BIASED_SHARED_MOE),
        join(ATTENTION, QK_NORMS, GATED_FFN, NEXTN),
    ), keys={**WINDOW, "attention.sliding_window_pattern": [True, False, True]}),
)  # fmt: skip

LATENT = (
    Architecture("deepseek2", (_LATENT_DENSE, _LATENT_MOE)),
    Architecture("deepseek2", (join(EXPANDED_LATENT_ATTENTION, GATED_FFN),
                               join(EXPANDED_LATENT_ATTENTION, _BIASED_SHARED_MOE)),
                 variant="expanded", sizes=_EXPANDED),
    Architecture("deepseek2", (_LATENT_DENSE, _LATENT_MOE, join(_LATENT_MOE, NEXTN)),
                 variant="mtp"),
    Architecture("mistral4", (_LATENT_DENSE, _LATENT_MOE)),
    Architecture("deepseek32", (join(_LATENT_DENSE, INDEXER), join(_LATENT_MOE, INDEXER))),
    Architecture("glm-dsa", (join(_LATENT_DENSE, INDEXER), join(_LATENT_MOE, INDEXER),
                             join(_LATENT_MOE, INDEXER, NEXTN))),
    dense("minicpm3", EXPANDED_LATENT_ATTENTION, GATED_FFN, sizes=_EXPANDED),
)  # fmt: skip

_GLM_MOE = join(ATTENTION, QKV_BIASES, QK_NORMS, "post_attention_norm embd")
MULTI_TOKEN = (
    Architecture("glm4moe", (
        join(_GLM_MOE, without(GATED_FFN, "ffn_norm")),
        join(_GLM_MOE, EXPERTS, SHARED_EXPERT, EXPERT_BIAS),
        join(_GLM_MOE, EXPERTS, SHARED_EXPERT, EXPERT_BIAS, NEXTN,
             "nextn.shared_head_norm embd"),
    )),
    # Sparse attention: an indexer's cache beside the keys and values of every sparse layer.
    Architecture("minimax-m3", (
        join(ATTENTION, QK_NORMS, GATED_FFN),
        join(ATTENTION, QK_NORMS, _BIASED_SHARED_MOE,
             "indexer.q_proj embd index_heads*index_head, indexer.k_proj embd index_head",
             "indexer.q_norm index_head, indexer.k_norm index_head"),
    ), sizes=Sizes(index_heads=2),
        keys={"attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1}),
)  # fmt: skip

WITH_EXPERTS = (*MOE, *WINDOWED_MOE, *LATENT, *MULTI_TOKEN)
