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


def test_endpoints_come_before_what_may_name_a_device_behind_them() -> None:
    plan = replace(PLAN, rpc=("h:1",), devices=("RPC0",), tensor_overrides=("blk=RPC0[h:1]",))
    argv = server_argv(plan)
    assert argv.index("--rpc") < min(argv.index("--device"), argv.index("--override-tensor"))


def test_a_split_loses_no_digit_that_llama_cpp_reads() -> None:
    argv = server_argv(replace(PLAN, tensor_split=(16777215.0, 1 / 3)))
    assert values(argv, "--tensor-split") == ["16777215,0.333333333"]


def test_what_the_server_keeps_for_later_is_spelled_out() -> None:
    argv = server_argv(replace(PLAN, cache_reuse=256, n_ctx_checkpoints=8))
    assert values(argv, "--cache-reuse") == ["256"]
    assert values(argv, "--ctx-checkpoints") == ["8"]


def test_companions_appear_only_where_there_are_some() -> None:
    plain = server_argv(PLAN)
    assert not [word for word in plain if "draft" in word or "mmproj" in word or "spec" in word]


@pytest.mark.parametrize(
    ("n_gpu_layers", "draft_layers", "offload"),
    [
        pytest.param(33, "all", "--mmproj-offload", id="layers on a device"),
        pytest.param(-1, "all", "--mmproj-offload", id="all layers on a device"),
        pytest.param(0, "0", "--no-mmproj-offload", id="none on a device"),
    ],
)
def test_companions_go_where_layers_go(n_gpu_layers: int, draft_layers: str, offload: str) -> None:
    plan = replace(PLAN, n_gpu_layers=n_gpu_layers, mmproj="/p.gguf", draft=Model("d", "/d.gguf"))
    argv = server_argv(plan)
    assert values(argv, "--mmproj") == ["/p.gguf"]
    assert values(argv, "--model-draft") == ["/d.gguf"]
    assert values(argv, "--gpu-layers-draft") == [draft_layers]
    assert {"--mmproj-offload", "--no-mmproj-offload"} & set(argv) == {offload}


def test_a_draft_model_is_used_and_not_only_loaded() -> None:
    argv = server_argv(replace(PLAN, draft=Model("d", "/d.gguf")))
    assert values(argv, "--spec-type") == ["draft-simple"]
    assert values(argv, "--spec-draft-n-max") == ["3"]
    assert values(argv, "--cache-type-k-draft") == ["f16"]


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
