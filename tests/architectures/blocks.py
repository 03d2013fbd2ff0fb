"""The vocabulary in which architectures are described, and how one becomes a GGUF file.

A block is a line of text: tensors separated by commas, each a name and its dimensions in ggml's
order (the row length first), as in "attn_norm embd, attn_q embd q". Dimensions are sums of
products of numbers and of the names in `Sizes`. A name gets its layer's prefix, and ".weight"
unless it ends in a suffix of its own or in "!" (llama.cpp stores a few tensors without one).
What the tensors give away (experts, state-space layers, latent attention) is said in the metadata
without being asked for; an architecture adds only the keys that are its own.

Which tensors and keys there are was read in llama.cpp 0c1e570 (src/llama-arch.cpp, src/models).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ggufs import TensorSpec, byte_vocabulary, write_gguf

ATTENTION = "attn_norm embd, attn_q embd q, attn_k embd k, attn_v embd v, attn_output o embd"
FUSED_ATTENTION = "attn_norm embd, attn_qkv embd q+k+v, attn_output o embd"
QK_NORMS = "attn_q_norm head, attn_k_norm head"
POST_NORMS = "post_attention_norm embd, post_ffw_norm embd"
GATED_FFN = "ffn_norm embd, ffn_gate embd ff, ffn_up embd ff, ffn_down ff embd"
PLAIN_FFN = "ffn_norm embd, ffn_up embd ff, ffn_down ff embd"
EXPERTS = (
    "ffn_gate_inp embd experts, ffn_gate_exps embd ff_exp experts, "
    "ffn_up_exps embd ff_exp experts, ffn_down_exps ff_exp embd experts"
)
SHARED_EXPERT = (
    "ffn_gate_shexp embd ff_shexp, ffn_up_shexp embd ff_shexp, ffn_down_shexp ff_shexp embd"
)
EXPERT_BIAS = "exp_probs_b.bias experts"
#: Multi-head latent attention, as DeepSeek-V2 has it, with the up-projections absorbed.
LATENT_ATTENTION = (
    "attn_norm embd, attn_q_a embd q_rank, attn_q_a_norm q_rank, attn_q_b q_rank heads*mla_k, "
    "attn_kv_a_mqa embd kv_rank+rope, attn_kv_a_norm kv_rank, attn_k_b nope kv_rank heads, "
    "attn_v_b kv_rank mla_v heads, attn_output heads*mla_v embd"
)
INDEXER = (
    "indexer.k_norm index_head, indexer.k_norm.bias index_head, indexer.proj embd index_heads, "
    "indexer.attn_k embd index_head, indexer.attn_q_b q_rank index_heads*index_head"
)
NEXTN = "nextn.eh_proj 2*embd embd, nextn.enorm embd, nextn.hnorm embd"
MAMBA = (
    "attn_norm embd, ssm_in embd 2*inner, ssm_conv1d conv inner, ssm_conv1d.bias inner, "
    "ssm_x inner dt+2*state, ssm_dt dt inner, ssm_dt.bias inner, ssm_a! state inner, "
    "ssm_d! inner, ssm_out inner embd"
)
MAMBA2 = (
    "attn_norm embd, ssm_in embd 2*inner+2*groups*state+dt, "
    "ssm_conv1d conv inner+2*groups*state, ssm_conv1d.bias inner+2*groups*state, "
    "ssm_dt.bias dt, ssm_a! 1 dt, ssm_d! 1 dt, ssm_norm inner_of_group groups, "
    "ssm_out inner embd"
)
#: Gated delta net: the linear attention of the Qwen3-Next family.
DELTA_NET = (
    "attn_norm embd, attn_qkv embd 2*groups*state+dt*state, attn_gate embd dt*state, "
    "ssm_conv1d conv 2*groups*state+dt*state, ssm_dt.bias dt, ssm_a! dt, ssm_norm state, "
    "ssm_out dt*state embd"
)
SHORT_CONVOLUTION = (
    "attn_norm embd, shortconv.conv conv embd, shortconv.in_proj embd 3*embd, "
    "shortconv.out_proj embd embd"
)
#: Kimi delta attention.
KDA = (
    "attn_norm embd, ssm_conv1d_q conv 1 heads*kda, ssm_conv1d_k conv 1 heads*kda, "
    "ssm_conv1d_v conv 1 heads*kda, attn_q embd heads*kda, attn_k embd heads*kda, "
    "attn_v embd heads*kda, ssm_f_a embd kda, ssm_f_b kda heads*kda, ssm_beta embd heads, "
    "ssm_dt.bias heads*kda, ssm_norm kda, attn_output heads*kda embd"
)
OUTPUT = "output_norm embd, output embd vocab"

_SUFFIXES = (".bias", ".scale", ".lora_a", ".lora_b")


def biased(block: str) -> str:
    """The block with a bias for every tensor that it has."""
    return block + "".join(
        f", {text.split()[0]}.bias {text.split()[-1]}" for text in block.split(", ")
    )


def without(block: str, *names: str) -> str:
    """The block without some of its tensors."""
    return ", ".join(text for text in block.split(", ") if text.split()[0] not in names)


def join(*blocks: str) -> str:
    """Blocks as one."""
    return ", ".join(block for block in blocks if block)


@dataclass(frozen=True)
class Sizes:
    """What the names in blocks stand for; small, and sound for most architectures.

    Heads are 32 wide, because a quantized KV cache has blocks of 32.
    """

    embd: int = 128
    vocab: int = 320
    ctx: int = 512
    ff: int = 256
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    head_v: int = 0  # as head
    rope: int = 0  # as head
    experts: int = 4
    experts_used: int = 2
    ff_exp: int = 64
    ff_shexp: int = 64
    q_rank: int = 64
    kv_rank: int = 64
    mla_k: int = 64
    mla_v: int = 32
    index_heads: int = 4
    index_head: int = 64
    conv: int = 4
    inner: int = 256
    state: int = 16
    dt: int = 8
    groups: int = 2
    kda: int = 32
    extra: Mapping[str, int] = field(default_factory=dict)

    def names(self) -> dict[str, int]:
        """Every name that a block may use."""
        names = {key: item for key, item in vars(self).items() if key != "extra"}
        names["head_v"] = self.head_v or self.head
        names["rope"] = self.rope or self.head
        names["q"] = self.head * self.heads
        names["k"] = self.head * self.kv_heads
        names["v"] = names["head_v"] * self.kv_heads
        names["o"] = names["head_v"] * self.heads
        names["nope"] = self.mla_k - names["rope"]
        names["inner_of_group"] = self.inner // self.groups
        return {**names, **self.extra}


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp, as a small model.

    Attributes:
        name: general.architecture.
        layers: the block of each layer.
        ends: the tensors outside of the layers, besides the token embedding.
        sizes: widths and counts.
        keys: metadata of its own, without the architecture's prefix unless it has a dot-free
            namespace of its own ("tokenizer.", "general.", "xielu.").
        variant: tells several models of one architecture apart.
        kind: how the large matrices are stored.
        cannot: why llama.cpp cannot run it in some of the setups of loaded.py, by setup.
    """

    name: str
    layers: tuple[str, ...]
    ends: str = OUTPUT
    sizes: Sizes = Sizes()
    keys: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    kind: str = "Q4_0"
    cannot: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The architecture's name, and which of several models of it this is."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def n_layers(self) -> int:
        """Repeating layers."""
        return int(self.keys.get("block_count", len(self.layers)))

    def metadata(self) -> dict[str, Any]:
        """Everything that the header says besides the tensor table."""
        own = {**self._hyperparameters(), **self.keys}
        return {
            "general.architecture": self.name,
            "general.name": "random weights",  # by some names llama.cpp knows a vocabulary
            **{
                key if key.startswith(("tokenizer.", "xielu.")) else f"{self.name}.{key}": item
                for key, item in own.items()
            },
            **byte_vocabulary(self.sizes.vocab),
        }

    def tensors(self) -> list[TensorSpec]:
        """The tensor table, in the order in which converters write it."""
        names = self.sizes.names()
        specs = [self._tensor("token_embd embd vocab", "", names)]
        for number, block in enumerate(self.layers):
            specs += [self._tensor(text, f"blk.{number}.", names) for text in block.split(", ")]
        specs += [self._tensor(text, "", names) for text in self.ends.split(", ")]
        return specs

    def write(self, folder: Path) -> Path:
        """The model as a file in the folder."""
        return write_gguf(folder / f"{self.id}.gguf", self.metadata(), self.tensors())

    def _tensor(self, text: str, prefix: str, names: Mapping[str, int]) -> TensorSpec:
        name, *dimensions = text.split()
        # "enc.blk.%.attn_q": where a layer is not simply "blk.N."
        name = name.replace("%", prefix[4:-1]) if "%" in name else prefix + name
        if name.endswith("!"):
            name = name[:-1]
        elif not name.endswith(_SUFFIXES):
            name += ".weight"
        shape = tuple(_value(dimension, names) for dimension in dimensions)
        return TensorSpec(name, shape, self._kind_of(name, shape))

    def _kind_of(self, name: str, shape: tuple[int, ...]) -> str:
        """As converters do: only matrices of some size are quantized."""
        small = len([n for n in shape if n > 1]) < 2 or shape[0] % 32 or name.endswith(".bias")
        if small or any(part in name for part in ("norm", "ssm_a", "conv", "ffn_gate_inp")):
            return "F32"
        if name.startswith(("token_embd", "output")):
            return "Q8_0"
        if name.startswith(("position_embd", "token_types")):
            return "F32"
        return self.kind

    def _hyperparameters(self) -> dict[str, Any]:
        sizes, names = self.sizes, self.sizes.names()
        text = " ".join((*self.layers, self.ends))
        keys: dict[str, Any] = {
            "block_count": len(self.layers),
            "vocab_size": sizes.vocab,
            "context_length": sizes.ctx,
            "embedding_length": sizes.embd,
            "feed_forward_length": sizes.ff,
            "attention.head_count": sizes.heads,
            "attention.head_count_kv": sizes.kv_heads,
            "attention.key_length": sizes.head,
            "attention.value_length": names["head_v"],
            "attention.layer_norm_epsilon": 1e-5,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": names["rope"],
        }
        if "_exps" in text:
            dense = [("_exps" not in block) for block in self.layers]
            keys |= {
                "expert_count": sizes.experts,
                "expert_used_count": sizes.experts_used,
                "expert_feed_forward_length": sizes.ff_exp,
                "expert_gating_func": 2,
                "expert_weights_norm": True,
                "leading_dense_block_count": dense.index(False),
            }
        if "_shexp" in text:
            keys |= {
                "expert_shared_count": 1,
                "expert_shared_feed_forward_length": sizes.ff_shexp,
            }
        if "attn_kv_a" in text:
            keys |= {
                "attention.q_lora_rank": sizes.q_rank,
                "attention.kv_lora_rank": sizes.kv_rank,
            }
        if "attn_k_b" in text:  # absorbed: the cache holds one latent row a token
            keys |= {
                "attention.key_length": sizes.kv_rank + names["rope"],
                "attention.value_length": sizes.kv_rank,
                "attention.key_length_mla": sizes.mla_k,
                "attention.value_length_mla": sizes.mla_v,
                "attention.head_count_kv": 1,
            }
        if "indexer" in text:
            keys |= {
                "attention.indexer.head_count": sizes.index_heads,
                "attention.indexer.key_length": sizes.index_head,
                "attention.indexer.top_k": 64,
            }
        if "ssm_" in text:
            keys |= {
                "ssm.conv_kernel": sizes.conv,
                "ssm.inner_size": sizes.inner,
                "ssm.state_size": sizes.state,
                "ssm.time_step_rank": sizes.dt,
                "ssm.group_count": sizes.groups,
            }
        if "ssm_f_a" in text:
            keys["kda.head_dim"] = sizes.kda
        if "shortconv" in text:
            keys["shortconv.l_cache"] = sizes.conv
        n_nextn = sum("nextn." in block for block in self.layers)
        if n_nextn:
            keys["nextn_predict_layers"] = n_nextn
        return keys


def _value(dimension: str, names: Mapping[str, int]) -> int:
    return sum(
        math.prod(int(factor) if factor.isdigit() else names[factor] for factor in term.split("*"))
        for term in dimension.split("+")
    )
