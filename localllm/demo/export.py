"""Write the demo model as GGUF and read it again.

Q8_0 weights, the vocabulary, the chat template, who made it. Knows the file's keys and the model's
shape, nothing of training. Needs the `gguf` package, which only people who train the model again
must have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from localllm.demo.chatml import CHAT_TEMPLATE
from localllm.demo.tokenizer import END_OF_TEXT, IM_END, SPECIAL, Tokenizer, unspell

__all__ = ["SHAPE", "Shape", "read_gguf", "write_gguf"]


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, in llama.cpp's words.

    Every row of a matrix is a multiple of 256 long, because K-quants work in blocks of 256.
    """

    n_vocab: int = 2048
    n_ctx: int = 4096
    n_embd: int = 256
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 768
    rope_base: float = 10000.0
    rms_eps: float = 1e-5

    @property
    def head_size(self) -> int:
        """Width of one head of attention."""
        return self.n_embd // self.n_head


SHAPE = Shape()


def write_gguf(path: Path, arrays: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Write `arrays` (llama.cpp's tensor names, float32) and `tokenizer` to `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("localllm demo")
    writer.add_author("the localllm authors")
    writer.add_organization("localllm")
    writer.add_version("1")
    writer.add_license("mit")
    writer.add_license_name("MIT")
    writer.add_size_label("5M")
    writer.add_languages(["en", "zh"])
    writer.add_tags(["demo", "text-generation"])
    writer.add_description(
        "A tiny demo model that talks about localllm. Trained on a CPU by localllm/demo/train.py "
        "on text generated for it. A proof that the installation works, not a source of knowledge."
    )
    writer.add_context_length(SHAPE.n_ctx)
    writer.add_embedding_length(SHAPE.n_embd)
    writer.add_block_count(SHAPE.n_layer)
    writer.add_feed_forward_length(SHAPE.n_ff)
    writer.add_head_count(SHAPE.n_head)
    writer.add_head_count_kv(SHAPE.n_head_kv)
    writer.add_rope_dimension_count(SHAPE.head_size)
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_layer_norm_rms_eps(SHAPE.rms_eps)
    writer.add_vocab_size(SHAPE.n_vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    kinds = [gguf.TokenType.NORMAL] * (tokenizer.size - len(SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.spelled_tokens())
    writer.add_token_types([*kinds, *[gguf.TokenType.CONTROL] * len(SPECIAL)])
    writer.add_token_merges(tokenizer.spelled_merges())
    writer.add_bos_token_id(tokenizer.special_id(END_OF_TEXT))
    writer.add_eos_token_id(tokenizer.special_id(IM_END))
    writer.add_eot_token_id(tokenizer.special_id(IM_END))
    writer.add_pad_token_id(tokenizer.special_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    for name, array in arrays.items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> tuple[dict[str, Any], Tokenizer]:
    """Return the weights (float32) and the tokenizer of a file that `write_gguf` wrote."""
    reader = gguf.GGUFReader(path)
    spelled = reader.fields["tokenizer.ggml.merges"].contents()
    halves = (merge.split(" ") for merge in spelled)
    arrays = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    return arrays, Tokenizer(tuple((unspell(left), unspell(right)) for left, right in halves))
