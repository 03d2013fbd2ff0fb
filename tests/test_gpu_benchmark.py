"""benchmarks/gpu, as far as it goes without a GPU."""

import ctypes
import io
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.gpu import cards, check, models, source
from localllm.hub.localfile import open_model
from tests.architectures.blocks import ATTENTION, GATED_FFN, Sizes
from tests.architectures.dense import dense
from tests.shapes import Shape

MIB = 1 << 20
TINY = Shape(
    "tiny",
    "Tiny",
    dense(
        "llama",
        ATTENTION,
        GATED_FFN,
        n_layers=4,
        sizes=Sizes(embd=256, ff=512, heads=4, kv_heads=2, head=64, vocab=512, ctx=2048),
    ),
)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(models.SHAPES, "tiny", TINY)
    monkeypatch.setenv("LOCALLLM_HOME", str(tmp_path / "home"))
    return models.write(tmp_path, "tiny", "Q4_K_M")


def test_a_file_of_random_weights_is_as_long_as_its_header_says(tiny):
    header = TINY.header("Q4_K_M")
    vocabulary = tiny.stat().st_size - header.size_bytes
    assert 0 < vocabulary < 64 << 10
    assert open_model(tiny, "tiny", "file").model.size_bytes == tiny.stat().st_size


def test_a_plan_for_a_stand_in_runs_and_takes_what_was_predicted(tiny):
    with cards.stand_in(256 * MIB) as card:
        found = check.check(card, tiny, n_vocab=512, goal="chat", n_ctx=512, n_tries=1)
    assert found["first"]["outcome"] == found["second"]["outcome"] == "ran"
    assert found["first"]["n_gpu_layers"] == 5
    assert set(found["first"]["extra_bytes"]) == {"Host", "RPC0"}
    assert found["second"]["measured"]["decode, context full"] > 0
    assert abs(found["second"]["predicted_bytes"] - found["second"]["peak_bytes"]) < 8 * MIB
    assert found["is_good"]
    assert found["steps_to_spare"] == 0


def test_a_stand_in_that_is_too_small_counts_as_out_of_memory(tiny):
    with cards.stand_in(256 * MIB) as card:
        plan = check.planned(card, open_model(tiny, "tiny", "file"), "chat", 512)
        seen = check.run(replace(card, size_bytes=MIB), plan, 512, learn=False)
    assert seen.outcome == "out of memory"
    assert seen.peak_bytes > MIB


def test_an_engine_that_will_not_start_is_a_run_that_failed(tiny):
    with cards.stand_in(256 * MIB) as card:
        plan = check.planned(card, open_model(tiny, "tiny", "file"), "chat", 512)
        seen = check.run(card, replace(plan, type_k="f99"), 512)
    assert seen.outcome == "failed"
    assert seen.said


@pytest.mark.parametrize(
    ("log", "outcome"),
    [
        pytest.param(
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216.00 MiB on device 0:"
            " cudaMalloc failed: out of memory",
            "out of memory",
            id="while-loading",
        ),
        pytest.param("CUDA error: out of memory\n  in function alloc", "out of memory", id="later"),
        pytest.param("failed to allocate compute pp buffers", "out of memory", id="compute"),
        pytest.param("CUDA error: an illegal memory access", "failed", id="another-error"),
    ],
)
def test_running_out_of_memory_is_told_from_other_ends(log, outcome):
    run = check.Run(1, 512, "f16", (), 0, 0, "ran")
    seen = check.failed(run, "the engine died of SIGABRT", log)
    assert (seen.outcome, seen.said) == (outcome, "the engine died of SIGABRT")


class Tried:
    """Stands for `check.run`: plans with more than so many layers do not fit."""

    def __init__(self, n_most):
        self.n_most = n_most
        self.seen = []

    def __call__(self, card, plan, n_vocab, *, learn=True):
        self.seen.append(plan.n_gpu_layers)
        return SimpleNamespace(
            outcome="ran" if plan.n_gpu_layers <= self.n_most else "out of memory"
        )


@pytest.mark.parametrize(
    ("n_planned", "n_most", "n_tries", "tried", "spare"),
    [
        pytest.param(3, 3, 3, [4], 0, id="the-plan-is-the-most"),
        pytest.param(2, 4, 3, [3, 4, 5], 2, id="too-careful"),
        pytest.param(1, 9, 2, [2, 3], 2, id="the-tries-end-first"),
        pytest.param(5, 9, 3, [], 0, id="all-of-it"),
        pytest.param(4, 2, 3, [3, 2], -2, id="too-bold"),
        pytest.param(4, 0, 2, [3, 2], None, id="nothing-works"),
    ],
)
def test_neighbours_are_tried_until_the_limit_is_found(
    monkeypatch, tiny, n_planned, n_most, n_tries, tried, spare
):
    run = Tried(n_most)
    monkeypatch.setattr(check, "run", run)
    opened = open_model(tiny, "tiny", "file")
    plan = check.Plan(opened.model, n_ctx=512, n_gpu_layers=n_planned)
    card = SimpleNamespace(device="RPC0")
    runs, found = check.neighbours(card, plan, opened, 512, n_planned <= n_most, n_tries)
    assert (run.seen, found) == (tried, spare)
    assert len(runs) == len(tried)


class Driver:
    """Stands for libcuda.so.1: memory in grains of 2 MiB, and a context that takes some."""

    def __init__(self, total_bytes):
        self.total_bytes = total_bytes
        self.used_bytes = 0

    def cuInit(self, flags):
        return 0

    cuCtxSetCurrent = cuInit

    def cuDeviceGet(self, device, number):
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.used_bytes += 501 * MIB
        return 0

    def cuMemGetInfo_v2(self, free, total):
        free._obj.value = self.total_bytes - self.used_bytes
        return 0

    def cuMemAlloc_v2(self, address, n_bytes):
        assert isinstance(n_bytes, ctypes.c_size_t)
        self.used_bytes += -(-n_bytes.value // (2 * MIB)) * 2 * MIB
        return 2 if self.used_bytes > self.total_bytes else 0


@pytest.mark.parametrize("gib", [8, 12, 48, 100])
def test_the_ballast_leaves_what_was_asked_to_a_grain(gib):
    driver = Driver(140_000 * MIB)
    free = cards.take(driver, gib << 30)
    assert free == driver.total_bytes - driver.used_bytes
    assert abs(free - (gib << 30)) <= 2 * MIB


def test_a_card_that_is_larger_than_the_gpu_is_refused():
    with pytest.raises(cards.CardError, match=r"only .* bytes are free"):
        cards.take(Driver(40 << 30), 48 << 30)


def packed(names, target):
    """A tar.gz as sdists are: long names stand in pax headers."""
    with tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            entry = tarfile.TarInfo(f"llama_cpp_python-1/{name}")
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
    return target


def test_the_trimmed_source_has_what_is_built_and_nothing_else(tmp_path):
    long = "vendor/llama.cpp/ggml/src/ggml-cuda/template-instances/" + "x" * 80 + ".cu"
    kept = ["CMakeLists.txt", "llama_cpp/llama.py", "vendor/llama.cpp/src/llama.cpp", long]
    left = [
        "vendor/llama.cpp/models/ggml-vocab.gguf",
        "vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        "vendor/llama.cpp/tools/ui/src/app.ts",
        "vendor/llama.cpp/tools/server/README.md",
        ".git/config",
    ]
    sdist = packed([*kept, *left], tmp_path / "sdist.tar.gz")
    source.trim(sdist, tmp_path / "source.tar.xz")
    with tarfile.open(tmp_path / "source.tar.xz") as archive:
        assert [entry.name for entry in archive] == [f"source/{name}" for name in kept]
        assert archive.extractfile(f"source/{long}").read() == b"abc"
