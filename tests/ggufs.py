"""Writes small GGUF files of any shape with random weights, for tests and benchmarks.

Sound enough for llama.cpp to load and run; what they say is noise. Weights are drawn directly
in quantized form, so a model of half a billion weights takes a second and not a conversion.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localllm.quants import FILE_TYPES, TENSOR_TYPES

TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
FILE_TYPE_NUMBERS = {name: number for number, name in FILE_TYPES.items()}

#: Where a block keeps its fp16 scales (ggml-common.h); random bytes there would be inf or NaN.
_SCALE_OFFSETS = {
    "Q4_0": (0,),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class U16(int):
    """A number to be written as uint16, which llama.cpp wants of the split keys."""


class I32(int):
    """A number to be written as int32."""


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """A typed metadata value."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, U16):
        return struct.pack("<IH", 2, item)
    if isinstance(item, I32):
        return struct.pack("<Ii", 5, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, (str, bytes)):
        return struct.pack("<I", 8) + string(item)
    if isinstance(item, Sequence):
        if all(type(element) is int for element in item):  # int32, as token types are
            return struct.pack(f"<IIQ{len(item)}i", 9, 5, len(item), *item)
        kind = value(item[0])[:4]
        return (
            struct.pack("<I", 9)
            + kind
            + struct.pack("<Q", len(item))
            + b"".join(value(element)[4:] for element in item)
        )
    raise TypeError(type(item))


def random_tensor(kind: str, n_elements: int, rng: np.random.Generator) -> bytes:
    """The bytes of a tensor with small random weights."""
    if kind == "F32":
        return (rng.standard_normal(n_elements, dtype=np.float32) * 0.05).tobytes()
    if kind == "F16":
        return (rng.standard_normal(n_elements, dtype=np.float32) * 0.05).astype("<f2").tobytes()
    storage = TENSOR_TYPES[TYPE_NUMBERS[kind]]
    n_blocks = n_elements // storage.block_elements
    blocks = np.frombuffer(rng.bytes(n_blocks * storage.block_bytes), dtype=np.uint8)
    blocks = blocks.reshape(n_blocks, storage.block_bytes).copy()
    scale = np.frombuffer(np.float16(0.0004).tobytes(), dtype=np.uint8)
    for offset in _SCALE_OFFSETS[kind]:
        blocks[:, offset : offset + 2] = scale
    return blocks.tobytes()


@dataclass(frozen=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    kind: str = "F32"

    @property
    def n_bytes(self) -> int:
        storage = TENSOR_TYPES[TYPE_NUMBERS[self.kind]]
        return int(np.prod(self.shape)) // storage.block_elements * storage.block_bytes


def header_bytes(
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorSpec],
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole header, padded to where the data begins."""
    out = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    out += [string(key) + value(item) for key, item in metadata.items()]
    offset = 0
    for tensor in tensors:
        out.append(
            string(tensor.name)
            + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            + struct.pack("<IQ", TYPE_NUMBERS[tensor.kind], offset)
        )
        offset += -(-tensor.n_bytes // alignment) * alignment
    raw = b"".join(out)
    return raw + b"\0" * (-len(raw) % alignment)


def write_gguf(
    path: Path, metadata: Mapping[str, Any], tensors: Sequence[TensorSpec], *, seed: int = 1
) -> Path:
    """Writes header and random data; norms (1-D tensors) are ones."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as out:
        out.write(header_bytes(metadata, tensors))
        for tensor in tensors:
            if len(tensor.shape) == 1:
                out.write(np.ones(tensor.shape, dtype=np.float32).tobytes())
            else:
                out.write(random_tensor(tensor.kind, int(np.prod(tensor.shape)), rng))
            out.write(b"\0" * (-tensor.n_bytes % 32))
    return path


def byte_vocabulary(n_vocab: int) -> dict[str, Any]:
    """A byte-level BPE vocabulary of the wanted size: 256 bytes, fillers, three control tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    mapping = dict(zip(printable, map(chr, printable), strict=True))
    extra = 0
    for byte in range(256):  # GPT-2's bytes_to_unicode
        if byte not in mapping:
            mapping[byte] = chr(256 + extra)
            extra += 1
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    n_fillers = n_vocab - 256 - len(control)
    tokens = [mapping[byte] for byte in range(256)]
    tokens += [f"w{number}" for number in range(n_fillers)] + control
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (256 + n_fillers) + [3] * len(control),
        "tokenizer.ggml.merges": ["w 1"],
        "tokenizer.ggml.eos_token_id": n_vocab - 1,
        "tokenizer.ggml.bos_token_id": n_vocab - 3,
        "tokenizer.ggml.add_bos_token": False,
    }


@dataclass(frozen=True)
class Llama:
    """The shape of a llama-architecture model."""

    n_layers: int = 2
    n_embd: int = 64
    n_ff: int = 128
    n_head: int = 4
    n_head_kv: int = 2
    n_vocab: int = 320
    n_ctx_train: int = 2048
    kind: str = "F32"
    output_kind: str | None = None
    file_type: str | None = None
    chat_template: str | None = CHAT_TEMPLATE

    def metadata(self) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "general.architecture": "llama",
            "general.name": "random llama",
            "general.file_type": FILE_TYPE_NUMBERS[self.file_type or self.kind],
            "llama.block_count": self.n_layers,
            "llama.context_length": self.n_ctx_train,
            "llama.embedding_length": self.n_embd,
            "llama.feed_forward_length": self.n_ff,
            "llama.attention.head_count": self.n_head,
            "llama.attention.head_count_kv": self.n_head_kv,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.vocab_size": self.n_vocab,
            **byte_vocabulary(self.n_vocab),
        }
        if self.chat_template is not None:
            keys["tokenizer.chat_template"] = self.chat_template
        return keys

    def tensors(self) -> list[TensorSpec]:
        n_kv = self.n_embd // self.n_head * self.n_head_kv
        k, out_kind = self.kind, self.output_kind or self.kind
        specs = [TensorSpec("token_embd.weight", (self.n_embd, self.n_vocab), k)]
        for layer in range(self.n_layers):
            name = f"blk.{layer}."
            specs += [
                TensorSpec(name + "attn_norm.weight", (self.n_embd,)),
                TensorSpec(name + "attn_q.weight", (self.n_embd, self.n_embd), k),
                TensorSpec(name + "attn_k.weight", (self.n_embd, n_kv), k),
                TensorSpec(name + "attn_v.weight", (self.n_embd, n_kv), k),
                TensorSpec(name + "attn_output.weight", (self.n_embd, self.n_embd), k),
                TensorSpec(name + "ffn_norm.weight", (self.n_embd,)),
                TensorSpec(name + "ffn_gate.weight", (self.n_embd, self.n_ff), k),
                TensorSpec(name + "ffn_up.weight", (self.n_embd, self.n_ff), k),
                TensorSpec(name + "ffn_down.weight", (self.n_ff, self.n_embd), k),
            ]
        return [
            *specs,
            TensorSpec("output_norm.weight", (self.n_embd,)),
            TensorSpec("output.weight", (self.n_embd, self.n_vocab), out_kind),
        ]

    def write(self, path: Path) -> Path:
        return write_gguf(path, self.metadata(), self.tensors())


@dataclass(frozen=True)
class Projector:
    """The shape of a picture encoder in LLaVA's manner, a file for `--mmproj`.

    `n_embd_text` is the width of the model that it sees for.
    """

    n_embd_text: int = 64
    n_layers: int = 2
    n_embd: int = 64
    n_ff: int = 128
    n_head: int = 4
    image_size: int = 64
    patch_size: int = 16
    kind: str = "F32"

    def metadata(self) -> dict[str, Any]:
        vision = {
            "embedding_length": self.n_embd,
            "attention.head_count": self.n_head,
            "feed_forward_length": self.n_ff,
            "block_count": self.n_layers,
            "projection_dim": self.n_embd_text,
            "attention.layer_norm_epsilon": 1e-5,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        return {
            "general.architecture": "clip",
            "clip.has_vision_encoder": True,
            "clip.projector_type": "mlp",
            "clip.use_gelu": True,
            **{f"clip.vision.{key}": item for key, item in vision.items()},
        }

    def tensors(self) -> list[TensorSpec]:
        k, n_patches = self.kind, (self.image_size // self.patch_size) ** 2
        patch = (self.patch_size, self.patch_size, 3, self.n_embd)
        specs = [
            TensorSpec("v.patch_embd.weight", patch),
            TensorSpec("v.position_embd.weight", (self.n_embd, n_patches)),
        ]
        for layer in range(self.n_layers):
            name = f"v.blk.{layer}."
            specs += [
                TensorSpec(name + f"attn_{part}.weight", (self.n_embd, self.n_embd), k)
                for part in ("q", "k", "v", "out")
            ]
            specs += [
                TensorSpec(name + "ln1.weight", (self.n_embd,)),
                TensorSpec(name + "ln1.bias", (self.n_embd,)),
                TensorSpec(name + "ln2.weight", (self.n_embd,)),
                TensorSpec(name + "ln2.bias", (self.n_embd,)),
                TensorSpec(name + "ffn_up.weight", (self.n_embd, self.n_ff), k),
                TensorSpec(name + "ffn_up.bias", (self.n_ff,)),
                TensorSpec(name + "ffn_down.weight", (self.n_ff, self.n_embd), k),
                TensorSpec(name + "ffn_down.bias", (self.n_embd,)),
            ]
        return [
            *specs,
            TensorSpec("mm.0.weight", (self.n_embd, self.n_embd_text), k),
            TensorSpec("mm.0.bias", (self.n_embd_text,)),
            TensorSpec("mm.2.weight", (self.n_embd_text, self.n_embd_text), k),
            TensorSpec("mm.2.bias", (self.n_embd_text,)),
        ]

    def write(self, path: Path) -> Path:
        return write_gguf(path, self.metadata(), self.tensors())
