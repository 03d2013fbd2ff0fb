"""The Plan in llama.cpp's words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localllm.engine.argv import child_environment, llama_keywords, server_argv
from localllm.plan import Model, Plan

PLAN = Plan(
    Model("m", "/models/m.gguf", name="M"),
    n_ctx=8192,
    n_parallel=2,
    n_gpu_layers=33,
    n_threads=6,
    n_threads_batch=8,
    type_k="q8_0",
    type_v="q8_0",
    cache_ram_bytes=256 << 20,
    env={"GOMP_SPINCOUNT": "100000"},
)


def values(argv: list[str], name: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == name]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--model", "/models/m.gguf"),
        ("--alias", "M"),
        ("--ctx-size", "8192"),
        ("--parallel", "2"),
        ("--gpu-layers", "33"),
        ("--threads", "6"),
        ("--threads-batch", "8"),
        ("--cache-type-k", "q8_0"),
        ("--cache-ram", "256"),
        ("--fit", "off"),
    ],
)
def test_every_decided_value_is_spelled_out(argument: str, expected: str) -> None:
    assert values(server_argv(PLAN), argument) == [expected]


def test_splits_overrides_and_devices_appear_only_where_they_were_decided() -> None:
    plain = server_argv(PLAN)
    assert not {"--tensor-split", "--override-tensor", "--device", "--rpc"} & set(plain)
    placed = server_argv(
        replace(
            PLAN,
            tensor_split=(3.0, 1.5),
            tensor_overrides=("blk\\.1\\.ffn=CPU", "blk\\.2\\.ffn=CPU"),
            devices=("CUDA0",),
            rpc=("127.0.0.1:50052",),
        )
    )
    assert values(placed, "--tensor-split") == ["3,1.5"]
    assert values(placed, "--override-tensor") == ["blk\\.1\\.ffn=CPU", "blk\\.2\\.ffn=CPU"]
    assert values(placed, "--device") == ["CUDA0"]
    assert values(placed, "--rpc") == ["127.0.0.1:50052"]


def test_no_device_at_all_is_llama_cpps_none() -> None:
    assert values(server_argv(replace(PLAN, devices=())), "--device") == ["none"]


def test_automatic_flash_attention_is_on_for_the_library_where_false_would_mean_off() -> None:
    assert llama_keywords(PLAN)["flash_attn"] is True
    assert llama_keywords(replace(PLAN, flash_attn="off"))["flash_attn"] is False


def test_the_library_gets_ggmls_numbers_for_kv_types() -> None:
    keywords = llama_keywords(PLAN)
    assert (keywords["type_k"], keywords["type_v"]) == (8, 8)


def test_the_child_waits_as_planned() -> None:
    assert child_environment(PLAN, {})["GOMP_SPINCOUNT"] == "100000"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_person_who_chose_how_threads_wait_is_left_alone(name: str) -> None:
    environment = child_environment(PLAN, {name: "7"})
    assert {n: v for n, v in environment.items() if n != "GGML_NO_BACKTRACE"} == {name: "7"}


def test_variables_that_would_override_the_plan_do_not_reach_the_child() -> None:
    assert "LLAMA_ARG_CTX_SIZE" not in child_environment(PLAN, {"LLAMA_ARG_CTX_SIZE": "64"})
