"""A published table of quantizations, from headers alone: Mixtral-8x7B of December 2023.

    .venv/bin/python -m benchmarks.mixtral

The table is that of TheBloke's Mixtral-8x7B-Instruct-v0.1-GGUF: file sizes, and "max RAM required",
which is the size and 2.5 GB more, whatever the context. Ours are the sizes of headers with the
recipe of that time (tests/shapes/recipe.py), and what llama.cpp takes on one device with
everything on it, at three contexts, llama-server's other needs left out. All in 10^9 bytes.
"""

from __future__ import annotations

from benchmarks.common import store
from localllm.engine.dryrun import DryRun
from localllm.engine.locate import require_tools
from localllm.engine.loopback import loopback_devices
from localllm.plan import Model, Plan
from tests.shapes import SHAPES

RECIPE = "2023-12"
PUBLISHED = {"Q2_K": 15.64, "Q3_K_M": 20.36, "Q4_K_M": 26.44, "Q5_K_M": 32.23, "Q6_K": 38.38}
CONTEXTS = (4096, 16384, 32768)
GB = 1e9


def main() -> None:
    shape = SHAPES["8x7b"]
    headers = {quant: (shape.header(quant, RECIPE),) for quant in PUBLISHED}
    rows = []
    print(f"{'quant':<8}{'size':>8}{'ours':>8}{'error':>9}{'RAM':>9}", end="")
    print("".join(f"{f'at {n_ctx:,}':>12}" for n_ctx in CONTEXTS))
    with (
        loopback_devices(require_tools("ggml-rpc-server"), 1) as rpc,
        DryRun(headers) as oracle,
    ):
        for quant, published in PUBLISHED.items():
            size = headers[quant][0].size_bytes / GB
            needs = []
            for n_ctx in CONTEXTS:
                model = Model(quant, quant, n_layers=32)
                plan = Plan(model, n_ctx, n_gpu_layers=33, rpc=rpc, devices=("RPC0",))
                needs.append(sum(row.total_bytes for row in oracle.memory(plan)) / GB)
            rows.append(
                {
                    "quant": quant,
                    "published_gb": published,
                    "size_gb": round(size, 3),
                    "published_ram_gb": round(published + 2.5, 2),
                    "needs_gb": dict(
                        zip(map(str, CONTEXTS), (round(n, 2) for n in needs), strict=True)
                    ),
                }
            )
            error = size / published - 1
            print(f"{quant:<8}{published:>8.2f}{size:>8.2f}{error:>+9.2%}{published + 2.5:>9.2f}",
                  "".join(f"{n:>12.2f}" for n in needs), sep="")  # fmt: skip
    store("mixtral", {"recipe": RECIPE, "rows": rows})


if __name__ == "__main__":
    main()
