"""What doctor finds: a machine and an engine by hand for every finding, and what it says."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from localllm import diagnosis
from localllm.diagnosis import (
    Toolchain,
    diagnose,
    exit_code,
    redact,
)
from localllm.engine_report import EngineDevice, EngineReport
from localllm.hardware import (
    Accelerator,
    Cpu,
    Disk,
    Finding,
    Hardware,
    Level,
    Memory,
    System,
)
from localllm.units import GIB, MIB

# llama_print_system_info() of a build for the machine that it runs on
SYSTEM_INFO = (
    "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX_VNNI = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1"
    " | AVX512 = 1 | AVX512_VNNI = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
)
FEATURES = ("avx", "avx2", "avx512_vnni", "avx512f", "avx_vnni", "f16c", "fma")

HEALTHY = Hardware(
    System("Linux", "Debian GNU/Linux 12 (bookworm)", libc="glibc 2.36", python="3.11.7"),
    Cpu("a processor", "x86_64", FEATURES, n_physical=8, n_logical=16, n_affinity=16),
    Memory(total_bytes=64 * GIB, available_bytes=48 * GIB),
    (),
    Disk("/home/ada/.local/share/localllm/models", 500 * GIB, 200 * GIB),
)
ENGINE = EngineReport(
    library="/env/llama_cpp/lib",
    version="0.3.36",
    commit="0c1e570",
    tools_folder="/env/bin",
    tools=("llama-server", "llama-bench"),
    tools_commit="0c1e57046",
    backend="cpu",
    supports_gpu_offload=False,
    system_info=SYSTEM_INFO,
    devices=(EngineDevice("CPU", "a processor"),),
    build_number=9000,
)
TOOLCHAIN = Toolchain("/usr/bin/c++", "sudo apt install g++")
NO_COMPILER = Toolchain(None, "sudo apt install g++")
GPU = Accelerator("nvidia", 0, "NVIDIA GeForce RTX 4090", driver="535.54", runtime="12.2")
BROKEN = replace(ENGINE, error="it died", devices=(), system_info=None, backend=None)
NO_ENGINE = EngineReport(error="llama-cpp-python is not installed")


@dataclass(frozen=True)
class Case:
    code: str
    level: Level
    says: str
    mends: str | None
    hardware: Hardware = HEALTHY
    engine: EngineReport = ENGINE
    toolchain: Toolchain = TOOLCHAIN

    @property
    def findings(self) -> tuple[Finding, ...]:
        return diagnose(self.hardware, self.engine, self.toolchain)


def with_gpu(**changes: object) -> Hardware:
    return replace(HEALTHY, accelerators=(replace(GPU, **changes),))  # type: ignore[arg-type]


def with_cpu(**changes: object) -> Hardware:
    return replace(HEALTHY, cpu=replace(HEALTHY.cpu, **changes))  # type: ignore[arg-type]


def with_memory(**changes: object) -> Hardware:
    return replace(HEALTHY, memory=replace(HEALTHY.memory, **changes))  # type: ignore[arg-type]


def with_system(**changes: object) -> Hardware:
    return replace(HEALTHY, system=replace(HEALTHY.system, **changes))  # type: ignore[arg-type]


REBUILD = "localllm engine install --rebuild"
CASES = {
    "all is well": Case("engine.runs", "ok", "0.3.36 (llama.cpp 0c1e570), built for cpu", None),
    "no engine": Case(
        "engine.missing", "fail", "no llama.cpp is installed", "localllm engine install",
        engine=NO_ENGINE,
    ),
    "no engine and no compiler": Case(
        "engine.no-compiler", "fail", "no C++ compiler was found", "sudo apt install g++",
        engine=NO_ENGINE, toolchain=NO_COMPILER,
    ),
    "a broken engine and no compiler": Case(
        "engine.no-compiler", "warn", "cannot be built again", "sudo apt install g++",
        engine=BROKEN, toolchain=NO_COMPILER,
    ),
    "programs without the library": Case(
        "engine.library-missing", "warn", "the programs alone run chat and serve",
        "localllm engine install", engine=replace(ENGINE, library=None, error="not installed"),
    ),
    "the library without programs": Case(
        "engine.tools-missing", "warn", "only the Python library", "localllm engine install",
        engine=replace(ENGINE, tools_folder=None, tools=(), tools_commit=None),
    ),
    "the program is missing": Case(
        "engine.tools-missing", "warn", "/env/bin has no llama-server", REBUILD,
        engine=replace(ENGINE, tools=("llama-bench",)),
    ),
    "the programs do not start": Case(
        "engine.tools-broken", "fail", "llama-server in /env/bin does not start: no libgomp",
        REBUILD, engine=replace(ENGINE, tools_error="no libgomp"),
    ),
    "programs of another version": Case(
        "engine.version-mismatch", "warn", "the programs are of llama.cpp 4f1cd2a",
        "unset LOCALLLM_ENGINE_DIR", engine=replace(ENGINE, tools_commit="4f1cd2a"),
    ),
    "a vulnerable engine": Case(
        "engine.vulnerable", "warn", "b8000 is older than b8146, which closed CVE-2026-27940",
        REBUILD, engine=replace(ENGINE, build_number=8000),
    ),
    "a vulnerable library": Case(
        "engine.vulnerable", "warn", "llama-cpp-python 0.3.16 is older than 0.3.17",
        REBUILD, engine=replace(ENGINE, version="0.3.16"),
    ),
    "the engine does not load": Case(
        "engine.broken", "fail", "the engine does not load: it died", REBUILD, engine=BROKEN
    ),
    "the engine dies of SIGILL": Case(
        "engine.illegal-instruction", "fail", "died of SIGILL", REBUILD,
        engine=replace(BROKEN, signal="SIGILL"),
    ),
    "instructions that are not here": Case(
        "engine.illegal-instruction", "fail",
        "the engine uses avx512_vnni, avx512f, which this processor lacks", REBUILD,
        hardware=with_cpu(features=("avx", "avx2", "avx_vnni", "f16c", "fma")),
    ),
    "the CUDA runtime is missing": Case(
        "engine.cudart-missing", "fail", "its runtime is not found", "export LD_LIBRARY_PATH=",
        hardware=with_gpu(),
        engine=replace(BROKEN, stderr="libcudart.so.12: cannot open shared object file"),
    ),
    "cuBLAS is missing": Case(
        "engine.cudart-missing", "fail", "its runtime is not found", "export LD_LIBRARY_PATH=",
        engine=replace(BROKEN, stderr="OSError: libcublas.so.12: cannot open"),
    ),
    "a build without AVX2": Case(
        "engine.slow-build", "warn", "this processor has avx2, fma, f16c, avx512f", REBUILD,
        engine=replace(ENGINE, system_info="CPU : SSE3 = 1 | AVX = 1 | "),
    ),
    "a build without any of them": Case(
        "engine.slow-build", "warn", "this processor has avx2", REBUILD,
        engine=replace(ENGINE, system_info="CPU : SSE3 = 1 | LLAMAFILE = 1 | "),
    ),
    "an NVIDIA GPU and a CPU engine": Case(
        "engine.cpu-only", "warn", "NVIDIA GeForce RTX 4090 is here",
        "localllm engine install --backend cuda", hardware=with_gpu(),
    ),
    "an AMD GPU and a CPU engine": Case(
        "engine.cpu-only", "warn", "the amd GPU is here",
        "localllm engine install --backend rocm", hardware=with_gpu(vendor="amd", name=None),
    ),
    "an integrated GPU before a real one": Case(
        "engine.cpu-only", "warn", "NVIDIA GeForce RTX 4090 is here",
        "localllm engine install --backend cuda",
        hardware=replace(HEALTHY, accelerators=(Accelerator("intel", 0, unified=True), GPU)),
    ),
    "an Intel GPU and a CPU engine": Case(
        "engine.cpu-only", "warn", "Arc A770 is here",
        "localllm engine install --backend vulkan",
        hardware=with_gpu(vendor="intel", name="Arc A770"),
    ),
    "an Apple GPU and a CPU engine": Case(
        "engine.cpu-only", "warn", "Apple M3 is here", "localllm engine install --backend metal",
        hardware=with_gpu(vendor="apple", name="Apple M3", unified=True),
    ),
    "a driver older than the toolkit": Case(
        "engine.driver-older", "fail", "the driver (535.54, CUDA up to 12.2) is older",
        "update the NVIDIA driver", hardware=with_gpu(),
        engine=replace(
            ENGINE, backend="cuda",
            stderr="CUDA driver version is insufficient for CUDA runtime version",
        ),
    ),
    "a CUDA engine that sees no device": Case(
        "engine.no-device", "warn", "was built for cuda but sees no device", "check the driver",
        hardware=with_gpu(), engine=replace(ENGINE, backend="cuda"),
    ),
    "musl": Case(
        "system.musl", "warn", "musl 1.2.5", "localllm engine install",
        hardware=with_system(libc="musl 1.2.5"),
    ),
    "Rosetta": Case(
        "system.rosetta", "fail", "under Rosetta", "install an arm64 Python",
        hardware=with_system(translated=True),
    ),
    "a governor that saves power": Case(
        "cpu.governor", "warn", "governor is powersave", "sudo cpupower frequency-set",
        hardware=with_cpu(governor="powersave", scaling_driver="acpi-cpufreq"),
    ),
    "fewer processors by affinity": Case(
        "cpu.limited", "ok", "4 of 16 processors", None, hardware=with_cpu(n_affinity=4)
    ),
    "fewer processors by quota": Case(
        "cpu.limited", "ok", "2 of 16 processors", None, hardware=with_cpu(quota=2.5)
    ),
    "a container of a third": Case(
        "memory.limited", "warn", "this docker may use 20.0 GiB of the 64.0 GiB",
        "raise the limit",
        hardware=replace(
            with_memory(limit_bytes=20 * GIB), system=System("Linux", container="docker")
        ),
    ),
    "a group of nearly all": Case(
        "memory.limited", "ok", "this cgroup may use 60.0 GiB", "raise the limit",
        hardware=with_memory(limit_bytes=60 * GIB),
    ),
    "hardly any memory": Case(
        "memory.low", "warn", "only 900 MiB of memory are free", "close other programs",
        hardware=with_memory(available_bytes=900 * MIB),
    ),
    "little disk": Case(
        "disk.nearly-full", "warn", "8.0 GiB are free", "free some, or set LOCALLLM_HOME",
        hardware=replace(HEALTHY, disk=Disk("/models", 500 * GIB, 8 * GIB)),
    ),
    "disk for a very small model": Case(
        "disk.nearly-full", "warn", "1.0 GiB are free", "free some",
        hardware=replace(HEALTHY, disk=Disk("/models", 500 * GIB, 1 * GIB)),
    ),
    "hardly any disk": Case(
        "disk.nearly-full", "fail", "512 MiB are free where models go (/models)", "free some",
        hardware=replace(HEALTHY, disk=Disk("/models", 500 * GIB, 512 * MIB)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_finds(case: Case) -> None:
    found = [finding for finding in case.findings if finding.code == case.code]
    assert [finding.level for finding in found] == [case.level]
    assert case.says in found[0].message
    assert (found[0].fix or "").startswith(case.mends or "")
    assert (found[0].fix is None) == (case.mends is None)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_not_well_comes_with_the_line_that_mends_it(case: Case) -> None:
    for finding in case.findings:
        assert finding.level == "ok" or finding.fix, finding.code
        assert "\n" not in finding.message + (finding.fix or "")
        assert not re.search(r"\bNone\b", finding.message), finding.message


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_worst_comes_first_and_sets_the_exit_code(case: Case) -> None:
    levels = [finding.level for finding in case.findings]
    assert levels == sorted(levels, key=["fail", "warn", "ok"].index)
    assert exit_code(case.findings) == {"ok": 0, "warn": 1, "fail": 9}[levels[0]]


def test_every_code_is_tried_here() -> None:
    source = Path(diagnosis.__file__).read_text("utf-8")
    codes = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(engine|system|cpu|memory|disk)\.[a-z-]+", node.value)
    }
    assert codes == {case.code for case in CASES.values()}


def test_a_healthy_machine_has_one_thing_to_say() -> None:
    assert [finding.code for finding in diagnose(HEALTHY, ENGINE, TOOLCHAIN)] == ["engine.runs"]


QUIET = {
    "a GPU engine on its GPU": (
        with_gpu(),
        replace(ENGINE, backend="cuda", devices=(EngineDevice("CUDA0", "a GPU", "gpu"),)),
    ),
    "an integrated GPU, whose memory is the processor's": (
        with_gpu(vendor="intel", name="UHD 770", unified=True),
        ENGINE,
    ),
    "no system info": (HEALTHY, replace(ENGINE, system_info=None)),
    "instruction sets unknown": (with_cpu(features=None), ENGINE),
    "a system info that says nothing of the CPU": (
        HEALTHY,
        replace(ENGINE, system_info="CUDA : ARCHS = 890 | USE_GRAPHS = 1 | "),
    ),
    "the normal governor of intel_pstate": (
        with_cpu(governor="powersave", scaling_driver="intel_pstate"),
        ENGINE,
    ),
    "the normal governor of amd-pstate-epp": (
        with_cpu(governor="powersave", scaling_driver="amd-pstate-epp"),
        ENGINE,
    ),
    "a performance governor": (
        with_cpu(governor="performance", scaling_driver="acpi-cpufreq"),
        ENGINE,
    ),
    "the tools' commit is unknown": (HEALTHY, replace(ENGINE, tools_commit=None)),
    "a build number that is unknown": (HEALTHY, replace(ENGINE, build_number=None)),
    "the first build that is not vulnerable": (HEALTHY, replace(ENGINE, build_number=8146)),
    "the first library that is not vulnerable": (HEALTHY, replace(ENGINE, version="0.3.17")),
    "a limit above the whole machine": (with_memory(limit_bytes=100 * GIB), ENGINE),
    "just enough disk": (replace(HEALTHY, disk=Disk("/m", 500 * GIB, 10 * GIB)), ENGINE),
    "disk unknown": (replace(HEALTHY, disk=None), ENGINE),
    "free disk unknown": (replace(HEALTHY, disk=Disk("/m")), ENGINE),
    "just enough memory": (with_memory(available_bytes=1 * GIB), ENGINE),
    "memory unknown": (replace(HEALTHY, memory=Memory()), ENGINE),
    "processors unknown": (replace(HEALTHY, cpu=Cpu()), ENGINE),
}


@pytest.mark.parametrize(("hardware", "engine"), QUIET.values(), ids=QUIET)
def test_raises_no_alarm_over(hardware: Hardware, engine: EngineReport) -> None:
    assert [found.code for found in diagnose(hardware, engine, TOOLCHAIN)] == ["engine.runs"]


def test_a_very_old_engine_has_both_holes() -> None:
    findings = diagnose(HEALTHY, replace(ENGINE, build_number=7000), TOOLCHAIN)
    closed = [found.message for found in findings if found.code == "engine.vulnerable"]
    assert len(closed) == 2
    assert "CVE-2026-33298" in closed[0]
    assert "CVE-2026-27940" in closed[1]


def test_a_broken_engine_is_not_said_to_run_nor_asked_about_devices() -> None:
    codes = {found.code for found in diagnose(with_gpu(), BROKEN, TOOLCHAIN)}
    assert codes == {"engine.broken"}


def test_without_an_engine_nothing_else_is_said_of_it() -> None:
    codes = [found.code for found in diagnose(with_gpu(), NO_ENGINE, TOOLCHAIN)]
    assert codes == ["engine.missing"]


def test_what_the_probe_found_is_carried_over_in_its_place() -> None:
    probed = (
        Finding("ok", "probe.fine", "fine"),
        Finding("warn", "probe.nvml", "NVML did not answer", "nvidia-smi"),
        Finding("fail", "probe.dead", "dead", "replace it"),
    )
    findings = diagnose(with_system(translated=True), ENGINE, TOOLCHAIN, probed)
    assert [found.code for found in findings] == [
        "probe.dead", "system.rosetta", "probe.nvml", "probe.fine", "engine.runs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ((), 0),
        (("ok", "ok"), 0),
        (("ok", "warn"), 1),
        (("warn", "fail", "ok"), 9),
        (("fail",), 9),
    ],
    ids=["nothing", "ok", "warn", "all three", "fail"],
)
def test_the_exit_code_is_the_worst_levels(levels: tuple[Level, ...], code: int) -> None:
    assert exit_code([Finding(level, "x.y", "z") for level in levels]) == code


def test_a_report_of_the_engine_is_json() -> None:
    document = json.loads(json.dumps(ENGINE.to_json()))
    assert document["devices"][0]["name"] == "CPU"
    assert document["tools"] == ["llama-server", "llama-bench"]


# -- redaction -----------------------------------------------------------------------------------

UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
REDACTED = {
    "the home folder": ("/home/ada/.cache/localllm", "~/.cache/localllm"),
    "the home folder in quotes": ('"path": "/home/ada"', '"path": "~"'),
    "the home folder in a list": ("/opt:/home/ada:/usr", "/opt:~:/usr"),
    "the user": ("run by ada (1000)", "run by USER (1000)"),
    "the user in a path elsewhere": ("/run/media/ada/disk", "/run/media/USER/disk"),
    "the user in a file name": ("ada.gguf", "USER.gguf"),
    "the host": ("on analytical-engine.example.org", "on HOST.example.org"),
    "user and host": ("ada@analytical-engine", "USER@HOST"),
    "a GPU's UUID": (f"GPU-{UUID}", "GPU-…"),
    "a MIG slice's UUID": (f"MIG-{UUID}", "MIG-…"),
    "an old MIG slice's UUID": (f"MIG-GPU-{UUID}/7/0", "MIG-GPU-…"),
    "a UUID in capitals": (UUID.upper(), "…"),
    "a bare UUID": (f"id {UUID}.", "id …."),
    "a token of the hub": ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz", "hf_…"),
    "a token of the hub in JSON": ('"hf_QwErTyUiOpAsDfGh"', '"hf_…"'),
    "an API key": ("sk-proj-4f9a_Bc-7d", "sk-…"),
    "a short API key": ("Bearer sk-1234abcd", "Bearer sk-…"),
    "a token of ModelScope": (f"ms-{UUID}", "ms-…"),
}


@pytest.mark.parametrize(("text", "expected"), REDACTED.values(), ids=REDACTED)
def test_a_report_leaves_out(text: str, expected: str) -> None:
    assert redact(text, "/home/ada", "ada", "analytical-engine") == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("/home/adam/models", id="a home that begins alike"),
        pytest.param("/home/ada-lovelace/models", id="another home that begins alike"),
        pytest.param("adapter canada ada_lovelace non-ada", id="words that hold the user"),
        pytest.param("analytical-engines", id="a word that holds the host"),
        pytest.param("engine", id="a part of the host"),
        pytest.param("GPU-accelerated MIG-enabled GPU-0", id="words with GPU"),
        pytest.param("HF_HUB_ENABLE_HF_TRANSFER hf_transfer hf_hub_download", id="hub's words"),
        pytest.param("ms_per_token_p95 ms-per-token sk_buff_head", id="words with ms and sk"),
        pytest.param("task-12345678 risk-1234abcd", id="words that end in sk"),
        pytest.param("0.3.36 0c1e570 550.54.15 0000:65:00.0", id="versions and bus addresses"),
        pytest.param("Qwen3-8B-Q4_K_M-00001-of-00003.gguf", id="a file name"),
        pytest.param("4d7a214614ab2935c943f9e0ff69d22e", id="a digest"),
        pytest.param("模型 · ok — 1…2", id="other scripts"),
    ],
)
def test_a_report_keeps_ordinary_words(text: str) -> None:
    assert redact(text, "/home/ada", "ada", "analytical-engine") == text


@pytest.mark.parametrize(
    ("home", "user", "host"),
    [
        pytest.param("/", "", "", id="nothing known"),
        pytest.param("", "root", "", id="root"),
        pytest.param("/", "ai", "pc", id="names too short to be told from words"),
    ],
)
def test_what_names_nobody_is_not_replaced(home: str, user: str, host: str) -> None:
    text = "/usr/lib root ai pc a/b"
    assert redact(text, home, user, host) == text


def test_names_with_characters_of_a_pattern_are_taken_as_they_are() -> None:
    assert redact("a.b axb", "/home/a.b", "a.b", "h(o)st") == "USER axb"
    assert redact("/home/a+b/x on h(o)st", "/home/a+b", "a+b", "h(o)st") == "~/x on HOST"


def test_a_whole_report_stays_json() -> None:
    document = {
        "hardware": replace(with_gpu(uuid=f"GPU-{UUID}")).to_json(),
        "engine": ENGINE.to_json(),
    }
    text = redact(json.dumps(document), "/home/ada", "ada", "analytical-engine")
    again = json.loads(text)
    assert again["hardware"]["accelerators"][0]["uuid"] == "GPU-…"
    assert again["hardware"]["disk"]["path"] == "~/.local/share/localllm/models"
    assert again["engine"] == json.loads(json.dumps(ENGINE.to_json()))
