"""Architectures whose layers, all or some, keep a state in place of a cache."""

from __future__ import annotations

from tests.architectures.blocks import (
    ATTENTION,
    DELTA_NET,
    EXPERT_BIAS,
    EXPERTS,
    GATED_FFN,
    KDA,
    LATENT_ATTENTION,
    MAMBA,
    MAMBA2,
    NEXTN,
    QK_NORMS,
    SHARED_EXPERT,
    SHORT_CONVOLUTION,
    Architecture,
    Sizes,
    biased,
    join,
    without,
)
from tests.architectures.dense import BIASED_OUTPUT, LOGIT_SCALE, SECTIONS, dense
from tests.architectures.experts import WIDE_EXPERTS

#: The first layer keeps a state, the second a cache.
STATE_FIRST = {"attention.head_count_kv": [0, 2]}
_MOE = join("ffn_norm embd", EXPERTS)
_NO_HEADS = {"attention.head_count": 0, "attention.head_count_kv": 0}
_RWKV = Sizes(extra={"lora": 32, "wkv": 32, "wkv_heads": 4})
_RWKV_KEYS = {**_NO_HEADS, "wkv.head_size": 32, "token_shift_count": 2}
_RWKV6_KEYS = {"time_mix_extra_dim": 32, "time_decay_extra_dim": 32}
_RWKV7_KEYS = {
    f"attention.{name}_lora_rank": 32 for name in ("decay", "iclr", "value_residual_mix", "gate")
}
_RWKV_NORMS = biased("attn_norm embd, attn_norm_2 embd, time_mix_ln embd")
_RWKV_ENDS = f"token_embd_norm embd, token_embd_norm.bias embd, {BIASED_OUTPUT}"
_RWKV6_TIME = (
    "time_mix_w1 embd 5*lora, time_mix_w2 lora embd 5, time_mix_lerp_x embd 1 1, "
    "time_mix_lerp_fused embd 1 1 5, time_mix_decay embd, "
    "time_mix_decay_w1 embd lora, time_mix_decay_w2 lora embd, "
    "time_mix_receptance embd embd, time_mix_gate embd embd, time_mix_output embd embd"
)
_RWKV7_TIME = (
    "time_mix_w0 embd, time_mix_w1 embd lora, time_mix_w2 lora embd, time_mix_a0 embd, "
    "time_mix_a1 embd lora, time_mix_a2 lora embd, time_mix_v0 embd, time_mix_v1 embd lora, "
    "time_mix_v2 lora embd, time_mix_g1 embd lora, time_mix_g2 lora embd, "
    "time_mix_lerp_fused embd 1 1 6, time_mix_k_k embd, time_mix_k_a embd, time_mix_r_k embd, "
    "time_mix_key embd embd, time_mix_value embd embd, time_mix_receptance embd embd, "
    "time_mix_output embd embd"
)

RECURRENT = (
    dense("mamba", MAMBA, keys=_NO_HEADS),
    dense("mamba2", MAMBA2, keys=_NO_HEADS),
    dense("rwkv6", _RWKV_NORMS, _RWKV6_TIME, "time_mix_first wkv wkv_heads",
          "time_mix_key embd embd, time_mix_value embd embd",
          "channel_mix_lerp_k embd 1 1, channel_mix_lerp_r embd 1 1, channel_mix_key embd ff",
          "channel_mix_value ff embd, channel_mix_receptance embd embd", ends=_RWKV_ENDS,
          sizes=_RWKV, keys={**_RWKV_KEYS, **_RWKV6_KEYS}),
    dense("rwkv6qwen2", "attn_norm embd", _RWKV6_TIME,
          biased("time_mix_key embd 2*wkv, time_mix_value embd 2*wkv"), GATED_FFN, sizes=_RWKV,
          keys={**_RWKV_KEYS, **_RWKV6_KEYS, "token_shift_count": 1,
                "attention.head_count_kv": 2}),
    dense("rwkv7", _RWKV_NORMS, _RWKV7_TIME,
          "channel_mix_lerp_k embd 1 1, channel_mix_key embd ff, channel_mix_value ff embd",
          ends=_RWKV_ENDS, sizes=_RWKV, keys={**_RWKV_KEYS, **_RWKV7_KEYS}),
    dense("arwkv7", "attn_norm embd", _RWKV7_TIME, biased("time_mix_ln embd"), GATED_FFN,
          sizes=_RWKV, keys={**_RWKV_KEYS, **_RWKV7_KEYS, "token_shift_count": 1}),
)  # fmt: skip

_JAMBA = join(MAMBA, "ssm_dt_norm dt, ssm_b_norm state, ssm_c_norm state")
_PLAMO2_MAMBA = (
    "attn_norm embd, ssm_in embd 2*inner, ssm_conv1d conv inner, ssm_x inner dt_rank+2*state, "
    "ssm_dt dt_rank dt, ssm_dt.bias dt, ssm_a! dt, ssm_d! dt, ssm_out inner embd, "
    "ssm_dt_norm! dt_rank, ssm_b_norm! state, ssm_c_norm! state"
)
_PLAMO2_REST = (
    "post_attention_norm! embd, ffn_norm embd, ffn_up embd 2*ff, ffn_down ff embd, "
    "post_ffw_norm! embd"
)
_NEXT_ATTENTION = join(
    without(ATTENTION, "attn_q"), "attn_q embd 2*q, post_attention_norm embd", QK_NORMS
)
_NEXT_STATE = join(DELTA_NET, "post_attention_norm embd")
_NEXT_MOE = join(EXPERTS, SHARED_EXPERT, "ffn_gate_inp_shexp embd")
_NEXT = Sizes(inner=128, state=32, dt=4, groups=2)
_NEXT_KEYS = {"full_attention_interval": 2}
_DENSE_FFN = without(GATED_FFN, "ffn_norm")
_NEMOTRON_MOE = join(
    without(EXPERTS, "ffn_gate_exps"), without(SHARED_EXPERT, "ffn_gate_shexp"), EXPERT_BIAS
)
_KIMI_ATTENTION = join(
    without(LATENT_ATTENTION, "attn_q_a", "attn_q_a_norm", "attn_q_b"), "attn_q embd heads*mla_k"
)
_KIMI_MOE = join("ffn_norm embd", EXPERTS, SHARED_EXPERT, EXPERT_BIAS)

HYBRID = (
    Architecture("jamba", (join(_JAMBA, GATED_FFN), join(ATTENTION, "ffn_norm embd",
                                                         WIDE_EXPERTS)), keys=STATE_FIRST),
    # Every layer has both.
    dense("falcon-h1", without(MAMBA2, "attn_norm"), ATTENTION, "ffn_norm! embd",
          without(GATED_FFN, "ffn_norm")),
    Architecture("plamo2", (join(_PLAMO2_MAMBA, _PLAMO2_REST),
                            join("attn_norm embd, attn_qkv embd q+k+v, attn_output o embd",
                                 "attn_q_norm head heads, attn_k_norm head kv_heads",
                                 _PLAMO2_REST)),
                 sizes=Sizes(extra={"dt_rank": 64}),
                 keys={**STATE_FIRST, "ssm.group_count": 0}),
    Architecture("granitehybrid", (join(MAMBA2, _MOE.replace("ff_exp", "ff"), SHARED_EXPERT),
                                   join(ATTENTION, _MOE.replace("ff_exp", "ff"),
                                        SHARED_EXPERT)),
                 keys={**STATE_FIRST, **LOGIT_SCALE}),
    Architecture("granitehybrid", (join(MAMBA2, GATED_FFN), join(ATTENTION, GATED_FFN)),
                 variant="dense", keys={**STATE_FIRST, **LOGIT_SCALE}),
    Architecture("lfm2", (join(SHORT_CONVOLUTION, GATED_FFN),
                          join(ATTENTION, QK_NORMS, GATED_FFN)),
                 ends="token_embd_norm embd", keys=STATE_FIRST),
    Architecture("lfm2moe", (join(SHORT_CONVOLUTION, GATED_FFN),
                             join(ATTENTION, QK_NORMS, _MOE, EXPERT_BIAS)),
                 ends="token_embd_norm embd", keys=STATE_FIRST),
    # A state, a cache or a feed-forward network: each layer has one of them.
    Architecture("nemotron_h", (MAMBA2, ATTENTION,
                                "attn_norm embd, ffn_up embd ff, ffn_down ff embd"),
                 keys={"attention.head_count_kv": [0, 2, 0], "feed_forward_length": [0, 0, 256]}),
    Architecture("nemotron_h_moe", (MAMBA2, ATTENTION, join("attn_norm embd", _NEMOTRON_MOE)),
                 keys={"attention.head_count_kv": [0, 2, 0], "feed_forward_length": [0, 0, 256]}),
    Architecture("qwen3next", (join(_NEXT_STATE, "ssm_ba embd 2*dt", _NEXT_MOE),
                               join(_NEXT_ATTENTION, _NEXT_MOE)), sizes=_NEXT, keys=_NEXT_KEYS),
    Architecture("qwen35", (join(_NEXT_STATE, "ssm_alpha embd dt, ssm_beta embd dt", _DENSE_FFN),
                            join(_NEXT_ATTENTION, _DENSE_FFN),
                            join(_NEXT_ATTENTION, _DENSE_FFN, NEXTN)),
                 sizes=_NEXT, keys={**_NEXT_KEYS, **SECTIONS}),
    Architecture("qwen35moe", (join(_NEXT_STATE, "ssm_alpha embd dt, ssm_beta embd dt",
                                    _NEXT_MOE),
                               join(_NEXT_ATTENTION, _NEXT_MOE)),
                 sizes=_NEXT, keys={**_NEXT_KEYS, **SECTIONS}),
    Architecture("kimi-linear", (join(KDA, "ssm_a! 1 heads, ssm_g_a embd kda",
                                      "ssm_g_b kda heads*kda", GATED_FFN),
                                 join(_KIMI_ATTENTION, _KIMI_MOE)),
                 keys={"attention.head_count_kv": [0, 1]}),
    Architecture("minimax-01", (join("attn_norm embd, attn_norm_2 q, attn_qkv embd 3*q",
                                     "attn_gate embd q, attn_output o embd, ffn_norm embd",
                                     WIDE_EXPERTS),
                                join(ATTENTION, "ffn_norm embd", WIDE_EXPERTS)),
                 keys={**_NEXT_KEYS, "residual_scale": 3.5}),
)  # fmt: skip

WITH_STATE = (*RECURRENT, *HYBRID)
