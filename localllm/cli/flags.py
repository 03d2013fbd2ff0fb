"""The flags that several commands share, and their variables.

What is not given is None: the plan decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL_HELP = "org/repo:Q4_K_M, a short name (qwen3:8b), a URL, a .gguf file, a folder, or demo."
Model = Annotated[
    str | None,
    typer.Argument(help=_MODEL_HELP, show_default=False),
]
RequiredModel = Annotated[str, typer.Argument(help=_MODEL_HELP, show_default=False)]
Ctx = Annotated[
    int | None,
    typer.Option(
        "--ctx", "-c", envvar="LOCALLLM_CTX", min=1, help="Context in tokens, all slots together."
    ),
]
Ngl = Annotated[
    int | None,
    typer.Option(
        "--ngl",
        envvar="LOCALLLM_NGL",
        min=-1,
        help="Layers on the GPU, the output layer as one; -1 for all.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", envvar="LOCALLLM_THREADS", min=1, help="Threads for decoding."),
]
Kv = Annotated[
    str | None,
    typer.Option("--kv", envvar="LOCALLLM_KV", help="Type of the KV cache: f16, q8_0, q4_0, ..."),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel", envvar="LOCALLLM_PARALLEL", min=1, help="Requests answered at the same time."
    ),
]
Quant = Annotated[
    str | None,
    typer.Option("--quant", "-q", help="This quantization, of several."),
]
Goal = Annotated[
    str | None, typer.Option("--goal", help="What it is for: chat, serve or long-context.")
]
Prefer = Annotated[
    str | None,
    typer.Option("--prefer", envvar="LOCALLLM_PREFER", help="quality (the default) or speed."),
]
Mmproj = Annotated[
    Path | None,
    typer.Option("--mmproj", help="A projector's file: the model then reads pictures."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


Offline = Annotated[
    bool,
    typer.Option("--offline", help="Ask no server: what is here, or was seen before, must do."),
]
Hw = Annotated[
    str | None,
    typer.Option("--hw", help="Plan for another machine: a preset, a file, or list."),
]
Ram = Annotated[
    str | None,
    typer.Option("--ram", help="Plan as if so much main memory were free: 16G."),
]
Vram = Annotated[
    str | None,
    typer.Option("--vram", help="Plan as if each accelerator had so much memory, all free."),
]
