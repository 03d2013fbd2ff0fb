"""Architectures with caches and residual streams of their own kind, drafts, and speech models."""

from __future__ import annotations

from tests.architectures.blocks import (
    ATTENTION,
    DELTA_NET,
    EXPERT_BIAS,
    EXPERTS,
    FUSED_ATTENTION,
    GATED_FFN,
    INDEXER,
    KDA,
    LATENT_ATTENTION,
    PLAIN_FFN,
    QK_NORMS,
    SHARED_EXPERT,
    Architecture,
    Sizes,
    biased,
    join,
    without,
)
from tests.architectures.dense import ALTERNATING, LOGIT_SCALE, SECTIONS, dense

_MOE = join("ffn_norm embd", EXPERTS, SHARED_EXPERT, EXPERT_BIAS)
_GATED_MOE = join(EXPERTS, SHARED_EXPERT, "ffn_gate_inp_shexp embd")
#: Four residual streams, mixed before and after each half of a layer.
_STREAMS = "{0}_fn 4*embd {1}, {0}_base {1}, {0}_scale {2}"
_FOUR_STREAMS = join(_STREAMS.format("hc_attn", 24, 3), _STREAMS.format("hc_ffn", 24, 3))
_HY_V4 = join(
    LATENT_ATTENTION,
    "attn_sinks heads, attn_gate embd heads*mla_v",
    _STREAMS.format("hc_attn", 8, 2),
    _STREAMS.format("hc_ffn", 8, 2),
)
_STREAMS_OUT = "output_hc_fn 4*embd 4, output_hc_base 4, output_hc_scale 1"
_STREAM_KEYS = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.magnitude": 2.0,
    "hyper_connection.low_rank": 8,
}
_KDA_FIRST = {"attention.head_count_kv": [0, 1], "kda.gate_lower_bound": -5.0}
_FLAT_KDA = join(KDA, "ssm_a! heads")
_LORA = ", ".join(
    f"{name}.lora_a {n_in} 8 2, {name}.lora_b 8 {n_out} 2"
    for name, n_in, n_out in (
        ("attn_q", "embd", "q"), ("attn_k", "embd", "k"), ("attn_v", "embd", "v"),
        ("attn_output", "q", "embd"), ("ffn_gate", "embd", "ff"), ("ffn_up", "embd", "ff"),
        ("ffn_down", "ff", "embd"),
    )
)  # fmt: skip

_V4_LAYER = join(
    "attn_norm embd, attn_sinks heads, attn_q_a embd q_rank, attn_q_a_norm q_rank",
    "attn_q_b q_rank heads*head, attn_kv embd head, attn_kv_a_norm head",
    "attn_output_a head 32 heads, attn_output_b 32*heads embd",
    _FOUR_STREAMS,
    _MOE,
)
_V4_COMPRESSOR = (
    "attn_compressor_kv embd {0}*head, attn_compressor_gate embd {0}*head, "
    "attn_compressor_ape {0}*head {1}, attn_compressor_norm head"
)
_V4_INDEXER = (
    "indexer.proj embd index_heads, indexer.attn_q_b q_rank index_heads*index_head, "
    "indexer_compressor_kv embd 2*index_head, indexer_compressor_gate embd 2*index_head, "
    "indexer_compressor_ape 2*index_head 4, indexer_compressor_norm index_head"
)
_QWEN4_STREAMS = ", ".join(
    f"hc_{part}_norm embd 4, hc_{part}_down 4*embd 8, hc_{part}_up 8 4*embd, "
    f"hc_{part}_inject 4*embd 4"
    for part in ("attn", "ffn")
)

NEWEST = (
    # Full layers are sparse, the others have a window, and a latent of their own width.
    Architecture("dots3note", (
        join(LATENT_ATTENTION, "attn_k_norm rope, attn_gate embd heads", INDEXER, GATED_FFN),
        join(LATENT_ATTENTION, "attn_k_norm rope, attn_gate embd heads", _MOE),
    ), keys={**ALTERNATING, "attention.sliding_window_pattern": [False, True],
             "attention.indexer.types": [1, 0], "rope.freq_base_swa": 10000.0,
             "attention.kv_lora_rank_swa": 64, "attention.key_length_swa": 96,
             "attention.value_length_swa": 64, "attention.key_length_mla_swa": 64,
             "attention.value_length_mla_swa": 32}),
    # A window everywhere, and behind it the past compressed 4 to 1 or 128 to 1.
    Architecture("deepseek4", (
        _V4_LAYER,
        join(_V4_LAYER, _V4_COMPRESSOR.format(2, 4), _V4_INDEXER),
        join(_V4_LAYER, _V4_COMPRESSOR.format(1, 128)),
    ), ends=f"output_norm embd, output embd vocab, {_STREAMS_OUT}",
        sizes=Sizes(kv_heads=1, head=64, rope=32),
        keys={**_STREAM_KEYS, "attention.sliding_window": 128, "expert_weights_scale": 1.0,
              "swiglu_clamp_exp": 10.0, "expert_gating_func": 4, "hash_layer_count": 0,
              "attention.q_lora_rank": 64, "attention.output_group_count": 4,
              "attention.output_lora_rank": 32, "attention.compress_rope_freq_base": 160000.0,
              "attention.compress_ratios": [0, 4, 128]}),
    Architecture("hy_v4", (
        join(_HY_V4, INDEXER, GATED_FFN),
        join(_HY_V4, _MOE),
    ), ends=f"output_norm embd, output embd vocab, {_STREAMS_OUT}",
        keys={**_STREAM_KEYS, "attention.indexer.types": [1, 0]}),
    Architecture("glm5-next", (
        join(_FLAT_KDA, "ssm_g_a embd kda, ssm_g_b kda heads*kda", _FOUR_STREAMS, GATED_FFN),
        join(LATENT_ATTENTION, INDEXER, "indexer_compressor_gate embd index_head",
             "indexer_compressor_ape index_head 4", _FOUR_STREAMS, _MOE),
    ), sizes=Sizes(extra={"rope": 0, "nope": 64}),
        keys={**_KDA_FIRST, **_STREAM_KEYS, "rope.dimension_count": 0,
              "attention.indexer.kpool": 4}),
    Architecture("kimi-k3", (
        join(_FLAT_KDA, "ssm_g embd heads*kda, attn_res_score embd, ffn_res_score embd",
             GATED_FFN),
        join(LATENT_ATTENTION, "attn_res_score embd, ffn_res_score embd", _MOE),
    ), ends="output_norm embd, output embd vocab, output_res_score embd",
        keys={**_KDA_FIRST, "attn_res.block_size": 12, "activation.situ_beta": 4.0,
              "activation.situ_linear_beta": 25.0}),
    Architecture("bailingmoe3", (
        join(without(KDA, "ssm_f_a", "ssm_f_b"), "ssm_f_a embd heads*kda, ssm_a! 1 heads",
             "ssm_g_a embd heads*kda", GATED_FFN),
        join(LATENT_ATTENTION, "attn_gate embd heads", _MOE),
    ), keys=_KDA_FIRST),
    Architecture("qwen4exp", (
        join(without(DELTA_NET, "attn_norm"), "ssm_alpha embd dt, ssm_beta embd dt",
             _QWEN4_STREAMS, _GATED_MOE),
        join(without(ATTENTION, "attn_norm", "attn_q"), "attn_q embd 2*q", QK_NORMS,
             "indexer.q_proj embd index_heads*index_head, indexer.k_proj embd index_head",
             "indexer.q_norm index_head, indexer.k_norm index_head", _QWEN4_STREAMS, _GATED_MOE),
    ), ends="output embd vocab, output_hc_norm embd 4, output_hc_down 4*embd 8, "
            "output_hc_up 8 4*embd",
        sizes=Sizes(inner=128, state=32, dt=4, groups=2),
        keys={**_STREAM_KEYS, **SECTIONS, "full_attention_interval": 2,
              "attention.compress_ratios": [4, 4]}),
    # Adapters in the file, and one more layer, of its own making, that routes between them.
    dense("graniteswitch", FUSED_ATTENTION, GATED_FFN, _LORA,
          keys={**LOGIT_SCALE, "adapters.count": 1, "adapters.lora_rank": 8,
                "adapters.router_gain": 10.0, "adapters.token_ids_activate": [5],
                "adapters.token_ids_substitute": [6]}),
    dense("qwen3tts", ATTENTION, QK_NORMS, GATED_FFN, ends="output_norm embd, output embd codes",
          sizes=Sizes(vocab=3200, extra={"codes": 3072}), keys=SECTIONS),
    dense("pockettts", biased("attn_norm embd"), without(ATTENTION, "attn_norm"),
          biased("ffn_norm embd"), without(PLAIN_FFN, "ffn_norm"),
          ends="output_norm embd, output_norm.bias embd"),
)  # fmt: skip
