"""Architectures that see their whole input at once: embedding models, encoders, diffusion."""

from __future__ import annotations

from tests.architectures.blocks import (
    ATTENTION,
    FUSED_ATTENTION,
    GATED_FFN,
    POST_NORMS,
    QK_NORMS,
    Architecture,
    biased,
    join,
    without,
)
from tests.architectures.dense import MHA, QKV_BIASES, TIED, WINDOW, dense

_TYPES = {"tokenizer.ggml.token_type_count": 2}
_EMBEDDINGS = "token_embd_norm embd, token_embd_norm.bias embd, token_types embd 2"
_POST_NORMED = biased("attn_output_norm embd, layer_output_norm embd")
_BERT_ATTENTION = without(ATTENTION, "attn_norm")
_BERT_FFN = biased("ffn_up embd ff, ffn_down ff embd")
_T5_SELF = (
    "{0}.blk.%.attn_norm embd, {0}.blk.%.attn_q embd q, {0}.blk.%.attn_k embd k, "
    "{0}.blk.%.attn_v embd v, {0}.blk.%.attn_o o embd, {0}.blk.%.attn_rel_b heads 32, "
    "{0}.blk.%.ffn_norm embd, {0}.blk.%.ffn_gate embd ff, {0}.blk.%.ffn_up embd ff, "
    "{0}.blk.%.ffn_down ff embd"
)
_T5_CROSS = (
    "dec.blk.%.cross_attn_norm embd, dec.blk.%.cross_attn_q embd q, "
    "dec.blk.%.cross_attn_k embd k, dec.blk.%.cross_attn_v embd v, "
    "dec.blk.%.cross_attn_o o embd"
)
_BUCKETS = {"attention.relative_buckets_count": 32}

ENCODERS = (
    dense("bert", biased(_BERT_ATTENTION), _BERT_FFN, _POST_NORMED, sizes=MHA,
          ends=f"{_EMBEDDINGS}, position_embd embd ctx", keys=_TYPES),
    dense("nomic-bert", _BERT_ATTENTION, "ffn_gate embd ff, ffn_up embd ff, ffn_down ff embd",
          _POST_NORMED, sizes=MHA, ends=_EMBEDDINGS, keys=_TYPES),
    Architecture("nomic-bert-moe", (
        join(biased(_BERT_ATTENTION), _BERT_FFN, _POST_NORMED),
        join(biased(_BERT_ATTENTION), _POST_NORMED, "ffn_gate_inp embd experts",
             "ffn_up_exps embd ff experts, ffn_down_exps ff embd experts"),
    ), sizes=MHA, ends=_EMBEDDINGS, keys={**_TYPES, "moe_every_n_layers": 2}),
    dense("jina-bert-v2", biased(_BERT_ATTENTION),
          "ffn_gate embd ff, ffn_up embd ff, ffn_down ff embd, ffn_down.bias embd",
          _POST_NORMED, sizes=MHA, ends=_EMBEDDINGS, keys=_TYPES),
    dense("jina-bert-v3", biased(_BERT_ATTENTION), _BERT_FFN, _POST_NORMED, sizes=MHA,
          ends=_EMBEDDINGS, keys=_TYPES),
    dense("modern-bert", FUSED_ATTENTION, "ffn_norm embd, ffn_up embd 2*ff, ffn_down ff embd",
          n_layers=3, sizes=MHA, ends="token_embd_norm embd, output_norm embd", keys=WINDOW),
    dense("neo-bert", FUSED_ATTENTION, "ffn_norm embd, ffn_up embd 2*ff, ffn_down ff embd",
          sizes=MHA, ends="enc.output_norm embd"),
    dense("eurobert", ends=TIED),
    dense("gemma-embedding", ATTENTION, QK_NORMS, POST_NORMS, GATED_FFN, n_layers=6, ends=TIED,
          keys=WINDOW),
    dense("t5encoder", _T5_SELF.format("enc"), sizes=MHA, ends="enc.output_norm embd",
          keys=_BUCKETS),
    dense("t5", _T5_SELF.format("enc"), _T5_SELF.format("dec"), _T5_CROSS, sizes=MHA,
          ends="enc.output_norm embd, dec.output_norm embd, output embd vocab", keys=_BUCKETS,
          cannot=dict.fromkeys(("two slots", "all layers, two slots"),
                               "its decoder asserts that there is one stream")),
)  # fmt: skip

DIFFUSION = (
    dense("dream", ATTENTION, QKV_BIASES, GATED_FFN),
    dense("llada", sizes=MHA),
)

AT_ONCE = (*ENCODERS, *DIFFUSION)
