"""NVIDIA's GPUs, asked of a fake driver that answers as real ones were seen to."""

from __future__ import annotations

import pynvml
import pytest

from localllm.hardware import Accelerator
from localllm.probe.nvidia import (
    Utilization,
    cuda_version,
    memory_bandwidth,
    probe_nvidia,
    utilization,
)
from tests.probe.fake_nvml import NO_PERMISSION, NOT_SUPPORTED, FakeNvml, Gpu, Refusal

MIB = 1 << 20

H200 = Gpu(
    "NVIDIA H200",
    "GPU-5f1c7a52-83a1-4b1e-9d0e-2f6c1a9be0d1",
    bus="00000000:19:00.0",
    memory=(143771 * MIB, 143144 * MIB),
    capability=(9, 0),
    width=6144,
    clock=3201,
    mig=(0, 0),
)
RTX_3060 = Gpu(
    "NVIDIA GeForce RTX 3060",
    "GPU-8a7f3f5e-1b9c-7d5a-4a3d-9c2f7b6e5d41",
    bus="00000000:0A:00.0",
    memory=(12288 * MIB, 11406 * MIB),
    capability=(8, 6),
    width=192,
    clock=7501,
    display=1,
)
GB10 = Gpu(
    "NVIDIA GB10",
    "GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5",
    bus="0000000F:01:00.0",
    capability=(12, 1),
    display=0,
)


@pytest.fixture(autouse=True)
def every_gpu_is_visible(monkeypatch):
    """Where the tests run in a job of a batch system, too."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def rtx_3090(bus: str, uuid: str) -> Gpu:
    return Gpu(
        "NVIDIA GeForce RTX 3090",
        uuid,
        bus=bus,
        memory=(24576 * MIB, 24252 * MIB),
        capability=(8, 6),
        width=384,
        clock=9751,
    )


def a100(slices: list[object]) -> Gpu:
    return Gpu(
        "NVIDIA A100-SXM4-40GB",
        "GPU-c8ff6d8b-44b1-20a9-4d1b-2f7dfac90a01",
        bus="00000000:07:00.0",
        memory=NO_PERMISSION,
        capability=(8, 0),
        width=5120,
        clock=1215,
        mig=(1, 1),
        slices=slices,
    )


def mig_slice(profile: str, uuid: str, mib: int) -> Gpu:
    return Gpu(f"NVIDIA A100-SXM4-40GB MIG {profile}", uuid, memory=(mib * MIB, (mib - 20) * MIB))


def test_a_server_gpu_is_told_in_full(tmp_path):
    nvml = FakeNvml(H200)

    gpus, findings = probe_nvidia(tmp_path, nvml)

    assert gpus == (
        Accelerator(
            vendor="nvidia",
            index=0,
            name="NVIDIA H200",
            uuid="GPU-5f1c7a52-83a1-4b1e-9d0e-2f6c1a9be0d1",
            pci_bus_id="0000:19:00.0",
            total_bytes=143771 * MIB,
            free_bytes=143144 * MIB,
            compute_capability="9.0",
            driver="550.54.15",
            runtime="12.4",
            bandwidth=pytest.approx(4.917e12, rel=1e-3),
            mig=False,
            display=False,
        ),
    )
    assert findings == ()
    assert nvml.open == 0, "the driver's session was left open"


def test_a_desktop_gpu_without_mig_that_draws_the_screen(tmp_path):
    (gpu,), findings = probe_nvidia(tmp_path, FakeNvml(RTX_3060))

    assert (gpu.mig, gpu.display, gpu.pci_bus_id) == (None, True, "0000:0a:00.0")
    assert gpu.bandwidth == pytest.approx(360e9, rel=1e-3)  # the data sheet's number
    assert findings == ()


def test_several_gpus_are_numbered_in_pci_order_as_cuda_is_told_to(tmp_path):
    second = rtx_3090("00000000:41:00.0", "GPU-b")
    first = rtx_3090("00000000:01:00.0", "GPU-a")
    third = Gpu("NVIDIA GeForce RTX 4090", "GPU-c", bus="00000001:01:00.0", memory=(24564, 24000))

    gpus, _ = probe_nvidia(tmp_path, FakeNvml(third, second, first))

    assert [(gpu.index, gpu.uuid) for gpu in gpus] == [(0, "GPU-a"), (1, "GPU-b"), (2, "GPU-c")]
    assert gpus[0].bandwidth == pytest.approx(936e9, rel=1e-3)


def test_a_gpu_cut_by_mig_is_its_slices_and_its_refused_memory_no_failure(tmp_path):
    slices = [mig_slice("3g.20gb", "MIG-1", 19968), mig_slice("1g.5gb", "MIG-2", 4864)]

    gpus, findings = probe_nvidia(tmp_path, FakeNvml(a100(slices), H200))

    assert [(g.index, g.name, g.uuid, g.total_bytes, g.mig) for g in gpus] == [
        (0, "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-1", 19968 * MIB, True),
        (1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG-2", 4864 * MIB, True),
        (2, "NVIDIA H200", H200.uuid, 143771 * MIB, False),
    ]
    assert {gpu.compute_capability for gpu in gpus[:2]} == {"8.0"}
    assert {gpu.bandwidth for gpu in gpus[:2]} == {None}
    assert findings == ()


CARDS = FakeNvml(
    rtx_3090("00000000:01:00.0", "GPU-aa11"),
    rtx_3090("00000000:41:00.0", "GPU-ab22"),
    rtx_3090("00000000:81:00.0", "GPU-cc33"),
)


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        pytest.param("1", ["GPU-ab22"], id="one"),
        pytest.param("2,0", ["GPU-cc33", "GPU-aa11"], id="in another order"),
        pytest.param(" 0 , 1 ", ["GPU-aa11", "GPU-ab22"], id="blanks"),
        pytest.param("GPU-cc33,1", ["GPU-cc33", "GPU-ab22"], id="UUID"),
        pytest.param("GPU-c", ["GPU-cc33"], id="the beginning of a UUID"),
        pytest.param("GPU-a", [], id="the beginning of two"),
        pytest.param("0,0", ["GPU-aa11"], id="twice"),
        pytest.param("0,7,1", ["GPU-aa11"], id="up to the first that is not there"),
        pytest.param("0,-1,1", ["GPU-aa11"], id="up to a -1"),
        pytest.param("", [], id="empty"),
        pytest.param("NoDevFiles", [], id="a word, as some batch systems say none"),
    ],
)
def test_cuda_visible_devices_hides_gpus_and_numbers_the_others(tmp_path, shown, left):
    gpus, findings = probe_nvidia(tmp_path, CARDS, environment={"CUDA_VISIBLE_DEVICES": shown})

    assert [(gpu.index, gpu.uuid) for gpu in gpus] == list(enumerate(left))
    assert [(finding.level, finding.message) for finding in findings] == [
        ("ok", f"CUDA_VISIBLE_DEVICES={shown} hides {3 - len(left)} of 3 NVIDIA GPUs.")
    ]


def test_cuda_visible_devices_that_names_all_hides_nothing(tmp_path):
    gpus, findings = probe_nvidia(tmp_path, CARDS, environment={"CUDA_VISIBLE_DEVICES": "0,1,2"})

    assert (gpus, findings) == probe_nvidia(tmp_path, CARDS, environment={})
    assert len(gpus) == 3


def test_cuda_visible_devices_counts_boards_and_names_slices(tmp_path):
    slices = [mig_slice("3g.20gb", "MIG-1", 19968), mig_slice("1g.5gb", "MIG-2", 4864)]
    nvml = FakeNvml(a100(slices), H200)

    def visible(shown: str) -> list[str | None]:
        gpus, _ = probe_nvidia(tmp_path, nvml, environment={"CUDA_VISIBLE_DEVICES": shown})
        return [gpu.uuid for gpu in gpus]

    assert visible("0") == ["MIG-1", "MIG-2"]
    assert visible("1") == [H200.uuid]
    assert visible("MIG-2") == ["MIG-2"]


def test_mig_without_a_slice_is_a_finding_with_the_line_that_mends_it(tmp_path):
    gpus, findings = probe_nvidia(tmp_path, FakeNvml(a100([])))

    assert gpus == ()
    assert [(f.code, f.fix) for f in findings] == [
        ("probe.nvidia-mig", "sudo nvidia-smi -i 0000:07:00.0 -mig 0")
    ]


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(NOT_SUPPORTED, id="refuses-the-question"),
        pytest.param((0, 0), id="answers-zero"),
        pytest.param((130663 * MIB, 121000 * MIB), id="answers-with-main-memory"),
    ],
)
def test_a_unified_board_has_no_memory_of_its_own(tmp_path, memory):
    board = Gpu(**{**GB10.__dict__, "memory": memory})

    (gpu,), findings = probe_nvidia(tmp_path, FakeNvml(board, driver="580.95.05", cuda=13000))

    assert (gpu.unified, gpu.total_bytes, gpu.free_bytes) == (True, None, None)
    assert (gpu.pci_bus_id, gpu.compute_capability) == ("000f:01:00.0", "12.1")
    assert (gpu.runtime, gpu.bandwidth) == ("13.0", None)
    assert findings == ()


def test_memory_that_fails_is_unknown_and_told_but_does_not_make_a_gpu_unified(tmp_path):
    timeout = Refusal(pynvml.NVML_ERROR_TIMEOUT)

    (gpu,), findings = probe_nvidia(tmp_path, FakeNvml(Gpu(**{**H200.__dict__, "memory": timeout})))

    assert (gpu.unified, gpu.total_bytes) == (False, None)
    assert [(f.level, f.code) for f in findings] == [("warn", "probe.nvml")]
    assert "memory (Timeout)" in findings[0].message


def test_a_lost_gpu_is_told_and_the_others_are_still_found(tmp_path):
    lost = Refusal(pynvml.NVML_ERROR_GPU_IS_LOST)

    gpus, findings = probe_nvidia(tmp_path, FakeNvml(lost, H200))

    assert [gpu.name for gpu in gpus] == ["NVIDIA H200"]
    assert [(f.code, f.fix) for f in findings] == [("probe.nvml", "sudo reboot")]


def test_names_in_bytes_of_older_pynvml_are_text(tmp_path):
    old = Gpu(b"Tesla P100-PCIE-16GB", b"GPU-1", bus=b"00000000:3B:00.0", memory=(1024, 512))

    (gpu,), _ = probe_nvidia(tmp_path, FakeNvml(old))

    assert (gpu.name, gpu.uuid) == ("Tesla P100-PCIE-16GB", "GPU-1")
    assert gpu.pci_bus_id == "0000:3b:00.0"


def test_driver_and_library_out_of_step_ask_for_a_restart(tmp_path):
    nvml = FakeNvml(init=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    gpus, findings = probe_nvidia(tmp_path, nvml)

    assert gpus == ()
    assert [(f.level, f.code, f.fix) for f in findings] == [
        ("warn", "probe.nvidia-mismatch", "sudo reboot")
    ]


@pytest.mark.parametrize(
    "error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
def test_no_driver_and_no_nvidia_device_is_nothing_to_tell(tmp_path, error):
    assert probe_nvidia(tmp_path, FakeNvml(init=error)) == ((), ())


@pytest.mark.parametrize(
    ("error", "container", "fix"),
    [
        pytest.param(
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, None, "install NVIDIA's driver", id="no-driver"
        ),
        pytest.param(
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "docker", "--gpus all", id="container-without-gpus"
        ),
        pytest.param(
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED, None, "modprobe nvidia", id="module-not-loaded"
        ),
    ],
)
def test_an_nvidia_device_without_a_driver_is_a_finding(machine, error, container, fix):
    root = machine("sysfs/nvidia-no-driver")

    gpus, findings = probe_nvidia(root, FakeNvml(init=error), container=container)

    assert gpus == ()
    assert [f.code for f in findings] == ["probe.nvidia-driver"]
    assert "[10de:2684] at 0000:01:00.0" in findings[0].message
    assert fix in (findings[0].fix or "")


@pytest.mark.parametrize(
    ("files", "codes"),
    [
        pytest.param({"dev/dxg": ""}, ["probe.wsl-libcuda"], id="without-libcuda"),
        pytest.param({"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""}, [], id="with-libcuda"),
        pytest.param({}, [], id="without-gpu-support"),
    ],
)
def test_wsl_without_libcuda_is_a_finding(machine, files, codes):
    nvml = FakeNvml(init=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    _, findings = probe_nvidia(machine(files=files), nvml, wsl=2)

    assert [f.code for f in findings] == codes


def test_a_jetson_without_nvml_is_known_by_its_device_tree(machine):
    root = machine(
        files={
            "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0",
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        }
    )

    gpus, findings = probe_nvidia(root, FakeNvml(init=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))

    assert gpus == (
        Accelerator("nvidia", 0, name="NVIDIA Jetson AGX Orin Developer Kit", unified=True),
    )
    assert findings == ()


def test_another_failure_of_the_driver_is_told_as_it_is(tmp_path):
    _, findings = probe_nvidia(tmp_path, FakeNvml(init=pynvml.NVML_ERROR_UNKNOWN))

    assert [f.code for f in findings] == ["probe.nvml"]
    assert "Unknown Error" in findings[0].message


def test_how_busy_each_gpu_is_and_what_is_used_of_its_memory():
    busy = Gpu(**{**H200.__dict__, "busy": 87})
    nvml = FakeNvml(busy, Gpu(**{**RTX_3060.__dict__, "memory": (12288 * MIB, 12000 * MIB)}))

    assert utilization(nvml) == [
        Utilization("NVIDIA H200", 0.87, 627 * MIB, 143771 * MIB),
        Utilization("NVIDIA GeForce RTX 3060", None, 288 * MIB, 12288 * MIB),
    ]
    assert nvml.open == 0, "the driver's session was left open"


def test_the_slices_of_a_gpu_have_their_own_memory_and_no_utilization():
    slices = [mig_slice("3g.20gb", "MIG-1", 19968), mig_slice("1g.5gb", "MIG-2", 4864)]

    assert utilization(FakeNvml(a100(slices))) == [
        Utilization("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None, 20 * MIB, 19968 * MIB),
        Utilization("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, 20 * MIB, 4864 * MIB),
    ]


def test_a_unified_board_is_busy_without_memory_of_its_own():
    board = Gpu(**{**GB10.__dict__, "busy": 3})

    assert utilization(FakeNvml(board)) == [Utilization("NVIDIA GB10", 0.03)]


def test_a_lost_gpu_is_left_out_of_those_that_are_busy():
    lost = Refusal(pynvml.NVML_ERROR_GPU_IS_LOST)
    mute = Gpu(NO_PERMISSION, "GPU-1", memory=NO_PERMISSION, busy=NO_PERMISSION)

    assert utilization(FakeNvml(lost, mute)) == [Utilization("NVIDIA GPU")]


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    ],
)
def test_without_a_driver_no_gpu_is_busy(error):
    assert utilization(FakeNvml(init=error)) == []


def test_the_fake_answers_only_what_the_real_module_has():
    names = [n for n in dir(FakeNvml) if n.lower().startswith("nvml")]

    assert names
    assert [n for n in names if not hasattr(pynvml, n)] == []


@pytest.mark.parametrize(
    ("number", "text"), [(12040, "12.4"), (11080, "11.8"), (13000, "13.0"), (None, None)]
)
def test_cuda_versions_are_written_as_people_do(number, text):
    assert cuda_version(number) == text


@pytest.mark.parametrize(("width", "clock"), [(0, 7501), (192, 0), (None, 7501), (192, None)])
def test_bandwidth_is_unknown_without_both_numbers(width, clock):
    assert memory_bandwidth(width, clock) is None
