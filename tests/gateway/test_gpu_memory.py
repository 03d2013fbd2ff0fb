"""What a replica holds on GPUs, as a driver tells it: in the status and in the metrics."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import wait_until
from tests.gateway.serving import served

ROOT = Path(__file__).parents[2]
#: In place of NVIDIA's driver, in the gateway's own process: a GPU on which each llama-server holds
#: 700 MiB, and somebody else 1 GiB.
DRIVER = """
import sys
import psutil
from tests.probe.fake_nvml import FakeNvml, Gpu

class Driver(FakeNvml):
    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle):
        children = psutil.Process().children(recursive=True)
        own = [child.pid for child in children if child.name().startswith("llama-server")]
        handle.computing = [(1, 1 << 30), *((pid, 700 << 20) for pid in own)]
        return super().nvmlDeviceGetComputeRunningProcesses_v3(handle)

memory = (24 << 30, 20 << 30)
sys.modules["pynvml"] = Driver(Gpu("NVIDIA L4", "GPU-1", bus="00000000:19:00.0", memory=memory))
"""


def test_what_each_replica_holds_on_a_gpu_is_told(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DRIVER)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    with served("demo", "--replicas", "2", environment={"PYTHONPATH": path}) as one:
        wait_until(
            lambda: all(
                replica.gpu_bytes == {"0000:19:00.0": 700 << 20} for replica in one.status.replicas
            ),
            "what both replicas hold on the GPU",
        )
        assert [gpu.used_bytes for gpu in one.status.gpus] == [4 << 30]
        with one.client() as client:
            page = client.get("/metrics").text
    for name in ("0", "1"):
        labels = f'{{address="0000:19:00.0",replica="{name}"}}'
        assert f"localllm_gpu_replica_bytes{labels} 7.340032e+08\n" in page
