"""The demo model: a few megabytes that talk about localllm, trained from this folder.

Knows where the shipped file lies. Everything else here (corpus, tokenizer, training, export,
evaluation) is for making that file again and is never imported at run time.
"""

from pathlib import Path

__all__ = ["model_path"]


def model_path() -> Path:
    """Return the path of the GGUF file shipped with the package."""
    return Path(__file__).with_name("demo.gguf")
