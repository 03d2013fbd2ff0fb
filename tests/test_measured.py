"""What is filed under what, how measurements merge, and what an unmeasured run is told."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.measured import Experience, Key, Measurement
from localllm.plan import Model, Plan
from localllm.recovery import Concession
from localllm.variants import RepoFile

GPU = Accelerator("nvidia", 0, name="NVIDIA H200", driver="550.54.15")
MACHINE = Hardware(System("Linux"), Cpu("AMD EPYC 9B45"), Memory(), (GPU,))
ENGINE = "0.3.36 0c1e570"
MODEL = Model("m", "/a/m.gguf", name="Some 8B", architecture="llama", quant="Q4_K_M", size_bytes=5)
PLAN = Plan(MODEL, n_ctx=8192, n_gpu_layers=33)


def key(plan: Plan = PLAN, machine: Hardware = MACHINE, engine: str = ENGINE) -> Key:
    return Key.of(machine, engine, plan)


def with_gpu(**changes: object) -> Hardware:
    return replace(MACHINE, accelerators=(replace(GPU, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_gpu_layers": 32},
        {"tensor_overrides": (r"blk\.1\.ffn=CPU",)},
        {"tensor_split": (1.0, 2.0)},
        {"devices": ("CUDA0",)},
        {"n_ctx": 4096},
        {"n_parallel": 2},
        {"type_k": "q8_0"},
        {"type_v": "q8_0"},
        {"flash_attn": "off"},
        {"n_ubatch": 256},
        {"n_threads": 7},
        {"load_mode": "none"},
        {"mmproj": "/a/mmproj.gguf"},
        {"draft": MODEL},
        {"model": replace(MODEL, quant="Q8_0")},
        {"model": replace(MODEL, size_bytes=6)},
        {"model": replace(MODEL, files=(RepoFile("m.gguf", 1, "0" * 64),))},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_another_shape_or_model_is_another_key(changes: dict[str, object]) -> None:
    other = key(replace(PLAN, **changes))  # type: ignore[arg-type]
    assert other != key()
    assert other.text != key().text


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(with_gpu(driver="560.1"), id="driver"),
        pytest.param(with_gpu(name="NVIDIA H100"), id="gpu"),
        pytest.param(replace(MACHINE, accelerators=()), id="no-gpu"),
        pytest.param(replace(MACHINE, accelerators=(GPU, GPU)), id="two-gpus"),
        pytest.param(replace(MACHINE, cpu=Cpu("another")), id="processor"),
    ],
)
def test_another_device_or_driver_is_another_key(machine: Hardware) -> None:
    assert key(machine=machine) != key()
    assert key(machine=machine).text != key().text


def test_what_comes_and_goes_is_not_in_the_key() -> None:
    busier = replace(with_gpu(free_bytes=1), memory=Memory(available_bytes=1))
    elsewhere = replace(PLAN, model=replace(MODEL, path="/b/m.gguf", ref="other"))
    assert key(elsewhere, busier) == key()


def test_a_keys_text_is_the_same_in_every_process() -> None:
    code = "from localllm.measured import Key; print(Key(('d',), 'e', 'm', (('n_ctx', '1'),)).text)"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert texts == {Key(("d",), "e", "m", (("n_ctx", "1"),)).text}


def test_of_memory_the_most_is_kept_device_by_device() -> None:
    older = Measurement({"Host": 50, "CUDA0": 600}, {"Host": 150, "CUDA0": 900})
    newer = Measurement({"Host": 40, "CUDA0": 700, "CUDA1": -5}, {"Host": 140, "CUDA0": 1000})
    merged = older.merged(newer)
    assert merged.extra_bytes == {"Host": 50, "CUDA0": 700, "CUDA1": -5}
    assert merged.peak_bytes == {"Host": 150, "CUDA0": 1000}


def decoded(rate: float | None, n_tokens: int) -> Measurement:
    return Measurement(decode_tokens_per_second=rate, n_decoded=n_tokens)


def test_speeds_of_two_measurements_are_their_tokens_over_their_seconds() -> None:
    merged = decoded(50.0, 100).merged(decoded(100.0, 100))
    assert merged.decode_tokens_per_second == pytest.approx(200 / 3.0)
    assert merged.n_decoded == 200


@pytest.mark.parametrize("rate", [None, 1000.0], ids=["unknown", "of-few-tokens"])
def test_a_speed_over_too_few_tokens_changes_nothing(rate: float | None) -> None:
    assert decoded(50.0, 100).merged(decoded(rate, 31)).decode_tokens_per_second == 50.0
    assert Measurement().merged(decoded(rate, 31)) == Measurement()


def test_a_machine_that_became_slower_is_believed_after_some_replies() -> None:
    known = decoded(100.0, 1_000_000)
    for _ in range(4):
        known = known.merged(decoded(10.0, 500))
    assert known.decode_tokens_per_second is not None
    assert known.decode_tokens_per_second < 20


def test_prompt_and_decoding_speeds_are_merged_by_themselves() -> None:
    prompt = Measurement(prompt_tokens_per_second=900.0, n_prompt=512, when="2026-11-20T10:00:00Z")
    merged = prompt.merged(replace(decoded(40.0, 64), when="2026-11-20T09:00:00Z"))
    assert (merged.prompt_tokens_per_second, merged.decode_tokens_per_second) == (900.0, 40.0)
    assert merged.when == "2026-11-20T10:00:00Z"


def test_of_what_was_given_up_the_newest_counts_and_a_quiet_run_forgets_nothing() -> None:
    first = Concession({"n_ubatch": 256}, "micro-batch 512 -> 256")
    second = Concession({"n_ctx": 4096}, "context 8192 -> 4096")
    known = Measurement(concessions=(first,)).merged(Measurement({"Host": 5}))
    assert known.concessions == (first,)
    assert known.merged(Measurement(concessions=(first, second))).concessions == (first, second)
    learned = Experience().learned(key(), known)
    found = learned.nearest(MACHINE, ENGINE, PLAN)
    assert found is not None
    assert found.concessions == (first,)
    other = learned.nearest(MACHINE, ENGINE, replace(PLAN, n_ctx=1))
    assert other is not None
    assert other.concessions == ()


def test_a_run_is_found_again_and_another_is_not() -> None:
    measured = Measurement({"Host": 1}, n_prompt=3)
    experience = Experience().learned(key(), measured)
    assert experience.find(key()) == Measurement({"Host": 1})
    assert experience.find(key(replace(PLAN, n_ctx=1))) is None
    assert Experience().find(key()) is None


def extra(plan: Plan, n_bytes: int, device: str = "CUDA0") -> tuple[Key, Measurement]:
    measured = Measurement(
        {device: n_bytes},
        {device: 10 * n_bytes},
        decode_tokens_per_second=9.0,
        n_decoded=99,
        when="2026-11-20T10:00:00Z",
    )
    return key(plan), measured


def nearest(*known: tuple[Key, Measurement], plan: Plan = PLAN) -> Measurement | None:
    return Experience(dict(known)).nearest(MACHINE, ENGINE, plan)


OTHER_CONTEXT = replace(PLAN, n_ctx=4096)
OTHER_PLACES = replace(PLAN, n_gpu_layers=10)


def test_the_run_itself_comes_first_with_its_speeds() -> None:
    own = extra(PLAN, 5)
    assert nearest(extra(OTHER_CONTEXT, 700), own) == own[1]


def test_the_same_places_with_another_context_come_before_other_places() -> None:
    told = nearest(extra(OTHER_PLACES, 900), extra(OTHER_CONTEXT, 700))
    assert told == Measurement({"CUDA0": 700}, when="2026-11-20T10:00:00Z")


def test_other_places_tell_at_least_something() -> None:
    told = nearest(extra(OTHER_PLACES, 900))
    assert told is not None
    assert told.extra_bytes == {"CUDA0": 900}


def test_a_device_that_the_nearest_run_does_not_tell_of_is_looked_for_further_off() -> None:
    own, near, far = extra(PLAN, 5), extra(OTHER_CONTEXT, 7, "Host"), extra(OTHER_PLACES, 9, "RPC0")
    told = nearest(own, near, far)
    assert told is not None
    assert told.extra_bytes == {"CUDA0": 5, "Host": 7, "RPC0": 9}
    assert told.decode_tokens_per_second == 9.0


def test_of_several_as_near_the_most_counts() -> None:
    told = nearest(extra(OTHER_CONTEXT, 700), extra(replace(PLAN, n_ctx=1024), 800))
    assert told is not None
    assert told.extra_bytes == {"CUDA0": 800}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(engine="0.3.37 1234567"), id="engine"),
        pytest.param(key(machine=with_gpu(driver="560.1")), id="driver"),
        pytest.param(key(replace(PLAN, model=replace(MODEL, name="Other"))), id="model"),
    ],
)
def test_another_engine_driver_or_model_tells_nothing(other: Key) -> None:
    assert nearest((other, Measurement({"CUDA0": 1}))) is None
