"""Architectures of plain layers: attention and one feed-forward network."""

from __future__ import annotations

from typing import Any

from tests.architectures.blocks import (
    ATTENTION,
    FUSED_ATTENTION,
    GATED_FFN,
    NEXTN,
    OUTPUT,
    PLAIN_FFN,
    POST_NORMS,
    QK_NORMS,
    Architecture,
    Sizes,
    biased,
    join,
    without,
)

#: As many heads for keys and values as for queries.
MHA = Sizes(kv_heads=4)
TIED = "output_norm embd"
BIASED_OUTPUT = "output_norm embd, output_norm.bias embd, output embd vocab"
QKV_BIASES = "attn_q.bias q, attn_k.bias k, attn_v.bias v"
GPT2_LAYER = biased(join(FUSED_ATTENTION, PLAIN_FFN))
FUSED_GATED_FFN = "ffn_norm embd, ffn_up embd 2*ff, ffn_down ff embd"
SECTIONS = {"rope.dimension_sections": [4, 6, 6, 0]}
LOGIT_SCALE = {"logit_scale": 0.5}
#: Every other layer sees only the last tokens.
WINDOW = {"attention.sliding_window": 128}
ALTERNATING = {**WINDOW, "attention.sliding_window_pattern": [True, False]}


def dense(name: str, *blocks: str, n_layers: int = 2, **rest: Any) -> Architecture:
    """The same layer again and again; Llama's where no blocks are given."""
    return Architecture(name, (join(*(blocks or (ATTENTION, GATED_FFN))),) * n_layers, **rest)


_GEMMA_LAYER = join(ATTENTION, POST_NORMS, GATED_FFN)
_GEMMA3_LAYER = join(_GEMMA_LAYER, QK_NORMS)
_ALTUP = (
    "inp_gate embd altup, proj altup embd, post_norm embd, altup_correct_coef 4 4, "
    "altup_correct_scale embd, altup_predict_coef 4 16, altup_router embd 4, "
    "altup_router_norm embd, laurel_l embd laurel, laurel_r laurel embd, laurel_post_norm embd"
)
_PER_LAYER_INPUT = "inp_gate embd per_layer, proj per_layer embd, post_norm embd"

PLAIN = (
    dense("llama"),
    dense("qwen2", ATTENTION, QKV_BIASES, GATED_FFN),
    dense("qwen3", ATTENTION, QK_NORMS, GATED_FFN),
    dense("qwen", biased("attn_qkv embd q+k+v"), "attn_norm embd, attn_output o embd",
          "ffn_norm embd, ffn_gate embd half, ffn_up embd half, ffn_down half embd",
          sizes=Sizes(kv_heads=4, extra={"half": 128})),
    dense("falcon", biased("attn_norm embd"), without(FUSED_ATTENTION, "attn_norm"),
          without(PLAIN_FFN, "ffn_norm"), ends=BIASED_OUTPUT),
    dense("gpt2", GPT2_LAYER, ends=f"position_embd embd ctx, {BIASED_OUTPUT}", sizes=MHA),
    dense("gptneox", GPT2_LAYER, ends=BIASED_OUTPUT, sizes=MHA,
          keys={"use_parallel_residual": True}),
    dense("mpt", FUSED_ATTENTION, PLAIN_FFN, ends=TIED, sizes=MHA,
          keys={"attention.max_alibi_bias": 8.0}),
    dense("starcoder", GPT2_LAYER, ends=f"position_embd embd ctx, {BIASED_OUTPUT}",
          sizes=Sizes(kv_heads=1)),
    dense("starcoder2", biased(join(ATTENTION, PLAIN_FFN)), ends=BIASED_OUTPUT),
    dense("codeshell", biased(without(ATTENTION, "attn_q", "attn_k", "attn_v")),
          "attn_q embd q, attn_k embd k, attn_v embd v", biased(PLAIN_FFN), ends=BIASED_OUTPUT),
    dense("refact", sizes=Sizes(kv_heads=1)),
    dense("bloom", GPT2_LAYER, sizes=MHA,
          ends=f"token_embd_norm embd, token_embd_norm.bias embd, {BIASED_OUTPUT}"),
    dense("baichuan", sizes=MHA),
    dense("stablelm", biased("attn_norm embd"), without(ATTENTION, "attn_norm"),
          biased("ffn_norm embd"), without(GATED_FFN, "ffn_norm"), ends=BIASED_OUTPUT),
    dense("phi2", biased("attn_norm embd"),
          without(biased(ATTENTION), "attn_norm", "attn_norm.bias"),
          biased(without(PLAIN_FFN, "ffn_norm")), sizes=MHA,
          ends=f"{BIASED_OUTPUT}, output.bias vocab"),
    dense("phi3", FUSED_ATTENTION, FUSED_GATED_FFN, keys=WINDOW,
          ends=f"{OUTPUT}, rope_factors_long half_rope, rope_factors_short half_rope",
          sizes=Sizes(extra={"half_rope": 16})),
    dense("plamo", ATTENTION, without(GATED_FFN, "ffn_norm")),
    dense("plamo3", FUSED_ATTENTION, QK_NORMS, "post_attention_norm! embd, post_ffw_norm! embd",
          FUSED_GATED_FFN, keys={**WINDOW, "attention.sliding_window_pattern": 2}),
    dense("orion", biased("attn_norm embd"), without(ATTENTION, "attn_norm"),
          biased("ffn_norm embd"), without(GATED_FFN, "ffn_norm"), ends=BIASED_OUTPUT),
    dense("internlm2"),
    dense("xverse"),
    dense("minicpm"),
    dense("command-r", ATTENTION, without(GATED_FFN, "ffn_norm"), ends=TIED, keys=LOGIT_SCALE),
    dense("olmo", without(ATTENTION, "attn_norm"), without(GATED_FFN, "ffn_norm"),
          ends="output embd vocab", sizes=MHA),
    dense("openelm", FUSED_ATTENTION, QK_NORMS, GATED_FFN, ends=TIED),
    dense("chatglm", FUSED_ATTENTION, "attn_qkv.bias q+k+v", FUSED_GATED_FFN),
    dense("bitnet", ATTENTION, "attn_sub_norm embd, ffn_sub_norm ff", GATED_FFN, ends=TIED),
    dense("jais", GPT2_LAYER, biased("ffn_gate embd ff"), ends=BIASED_OUTPUT, sizes=MHA,
          keys={"attention.max_alibi_bias": 8.0}),
    dense("jais2", biased(join(ATTENTION, PLAIN_FFN)), ends=BIASED_OUTPUT),
    dense("nemotron", biased("attn_norm embd"), without(ATTENTION, "attn_norm"),
          biased("ffn_norm embd"), without(PLAIN_FFN, "ffn_norm"), ends=BIASED_OUTPUT),
    dense("exaone"),
    dense("granite", keys=LOGIT_SCALE),
    dense("chameleon", ATTENTION, "attn_q_norm head heads, attn_k_norm head kv_heads", GATED_FFN,
          sizes=Sizes(vocab=8256)),  # its image tokens 4 to 8195 are masked by number
    dense("arcee", ATTENTION, PLAIN_FFN),
    dense("ernie4_5"),
    dense("paddleocr", keys=SECTIONS),
    dense("hunyuan-dense", ATTENTION, QK_NORMS, GATED_FFN),
    dense("hunyuan_vl", ATTENTION, QK_NORMS, GATED_FFN, keys=SECTIONS),
    dense("smollm3", n_layers=4),
    dense("seed_oss", ATTENTION, "post_attention_norm embd", without(GATED_FFN, "ffn_norm")),
    dense("apertus", ATTENTION, QK_NORMS, PLAIN_FFN,
          keys={f"xielu.{name}": 0.5 for name in ("alpha_n", "alpha_p", "beta", "eps")}),
    dense("pangu-embedded", ATTENTION, "attn_output.bias embd", GATED_FFN),
    dense("mistral3"),
    dense("maincoder", ATTENTION, QK_NORMS, GATED_FFN),
    dense("talkie", without(ATTENTION, "attn_norm"), "attn_q_norm 1 heads",
          without(GATED_FFN, "ffn_norm"), "layer_output_scale 1", ends="output embd vocab",
          keys=LOGIT_SCALE),
    dense("nanbeige", keys={"num_loops": 2}),
    dense("cogvlm", FUSED_ATTENTION, GATED_FFN, "vis_attn_qkv embd 3*q, vis_attn_output o embd",
          "vis_gate embd ff, vis_up embd ff, vis_down ff embd", sizes=MHA),
    dense("hrm_text", without(ATTENTION, "attn_norm"), "attn_gate embd q",
          without(GATED_FFN, "ffn_norm"), ends="output embd vocab, hrm.z_l_init! embd",
          keys={"block_count": 6, "hrm.layers_per_stack": 1, "hrm.h_cycles": 2,
                "hrm.l_cycles": 2}),
    dense("llama-embed"),
    dense("glm4", ATTENTION, POST_NORMS, FUSED_GATED_FFN),
    dense("gemma", ends=TIED),
    # Every other layer has a linear map in place of attention, and so no cache.
    Architecture("deci", (join(ATTENTION, GATED_FFN),
                          join("attn_norm embd, attn_output embd embd", GATED_FFN)) * 2,
                 keys={"attention.head_count": [4] * 4, "attention.head_count_kv": [2, 0, 2, 0],
                       "feed_forward_length": [256] * 4}),
)  # fmt: skip

MULTIMODAL = (
    dense("qwen2vl", ATTENTION, QKV_BIASES, GATED_FFN, keys=SECTIONS),
    dense("qwen3vl", ATTENTION, QK_NORMS, GATED_FFN,
          keys={**SECTIONS, "n_deepstack_layers": 1}),
)  # fmt: skip

WINDOWED = (
    dense("gemma2", _GEMMA_LAYER, ends=TIED, keys=WINDOW),
    dense("gemma3", _GEMMA3_LAYER, n_layers=6, ends=TIED, keys=WINDOW),
    # Layers from the 21st on share the cache of earlier ones, whatever the header says.
    dense("gemma3n", _GEMMA3_LAYER, _ALTUP, n_layers=22, keys=WINDOW,
          sizes=Sizes(embd=64, vocab=288, ff=64, heads=2, kv_heads=1,
                      extra={"altup": 256, "all_altup": 256 * 22, "laurel": 64}),
          ends="altup_proj embd embd 3, altup_unembd_proj embd embd 3, "
               "per_layer_token_embd all_altup vocab, per_layer_model_proj embd all_altup, "
               "per_layer_proj_norm altup, output_norm embd"),
    Architecture(
        "gemma4",
        (join(_GEMMA3_LAYER, _PER_LAYER_INPUT),
         join("attn_norm embd, attn_q embd 2*q, attn_k embd 2*k, attn_v embd 2*v, "
              "attn_output 2*o embd, attn_q_norm 2*head, attn_k_norm 2*head",
              POST_NORMS, GATED_FFN, _PER_LAYER_INPUT)),
        ends="per_layer_token_embd 2*per_layer vocab, per_layer_model_proj embd 2*per_layer, "
             "per_layer_proj_norm per_layer, output_norm embd, rope_freqs head",
        sizes=Sizes(extra={"per_layer": 32}),
        keys={**ALTERNATING, "embedding_length_per_layer_input": 32,
              "attention.key_length": 64, "attention.value_length": 64,
              "attention.key_length_swa": 32, "attention.value_length_swa": 32,
              "rope.dimension_count": 64, "rope.dimension_count_swa": 32,
              "attention.shared_kv_layers": 0},
    ),
    dense("cohere2", ATTENTION, without(GATED_FFN, "ffn_norm"), n_layers=4, ends=TIED,
          keys={**WINDOW, **LOGIT_SCALE}),
    dense("olmo2", without(ATTENTION, "attn_norm"), "attn_q_norm q, attn_k_norm k", POST_NORMS,
          without(GATED_FFN, "ffn_norm"), n_layers=4, keys=WINDOW),
    dense("muse-glimmer", _GEMMA3_LAYER, "attn_gate embd q", n_layers=4,
          keys={**WINDOW, **LOGIT_SCALE}),
    dense("granite_swa", ATTENTION, "attn_sinks heads", GATED_FFN,
          keys={**ALTERNATING, **LOGIT_SCALE}),
    dense("spark2_5", ATTENTION, "attn_gate embd heads", GATED_FFN, keys=ALTERNATING),
    Architecture("exaone4", (join(without(ATTENTION, "attn_norm"), QK_NORMS, POST_NORMS,
                                  without(GATED_FFN, "ffn_norm")),) * 2
                 + (join(without(ATTENTION, "attn_norm"), QK_NORMS, POST_NORMS,
                         without(GATED_FFN, "ffn_norm"), NEXTN),), keys=WINDOW),
)  # fmt: skip

DENSE = (*PLAIN, *MULTIMODAL, *WINDOWED)
