"""localllm: a llama.cpp GGUF runner that tunes itself to the hardware."""

__version__ = "0.1.0"
