"""llama-server's own arguments after the dashes: whose each is, and what is refused."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllm.cli import finding, passed_on, prepare
from localllm.cli.passed_on import PassedOn, read
from localllm.engine.client import http_client
from localllm.engine.locate import SERVER, Tools
from localllm.engine.server import LlamaServer
from localllm.errors import LocalllmError, NotFoundError, UsageError
from localllm.gateway.settings import Settings
from localllm.planner import Wishes

KEY = "sk-this-is-the-secret-key"


def words(line: str) -> list[str]:
    return line.split()


# -- whose it is

#: All that ServerProcess.start of llama.cpp's own server tests can say, and what becomes of it.
WISHES: dict[str, Mapping[str, Any]] = {
    "--batch-size 32": {"n_batch": 32},
    "--ubatch-size 16": {"n_ubatch": 16},
    "--threads 2": {"n_threads": 2},
    "--n-gpu-layers 99": {"n_gpu_layers": 99},
    "--ctx-size 512": {"n_ctx": 512},
    "--parallel 2": {"n_parallel": 2},
    "-ctk q8_0": {"type_k": "q8_0"},
    "-ctv q4_0": {"type_v": "q4_0"},
    "-fa on": {"flash_attn": "on"},
}
SETTINGS: dict[str, Mapping[str, Any]] = {
    "--port 8081": {"port": 8081},
    "--host 127.0.0.1": {"host": "127.0.0.1"},
    "--cors-origins http://a.example,http://b.example": {
        "cors_origins": ("http://a.example", "http://b.example")
    },
    "--cors-origins localhost": {"cors_origins": ("localhost",)},
}
CHILDS = (
    "--temp 0.8",
    "--seed 42",
    "--offline",
    "--cont-batching",
    "--embedding",
    "--reranking",
    "--metrics",
    "--slots",
    "--no-slots",
    "--pooling mean",
    "--tags a,b",
    "--n-predict 64",
    "--slot-save-path ./tmp",
    "--grp-attn-n 4",
    "--grp-attn-w 512",
    "--verbose",
    "--context-shift",
    "--spec-draft-n-max 8",
    "--spec-draft-n-min 4",
    "--spec-synth-len 2.5",
    "--spec-synth-rates 0.5,0.25",
    "--no-ui",
    "--jinja",
    "--no-jinja",
    "--reasoning-format deepseek",
    "--reasoning off",
    "--chat-template chatml",
    "--chat-template-file t.jinja",
    "--media-path ./media",
    "--no-cache-idle-slots",
    "--ui-mcp-proxy",
    "--tools all",
    "--tools-runtime docker:image",
    "--mcp-servers-config mcp.json",
    "--mcp-servers-json {}",
    "--backend_sampling",
)
CHILDS_WITH_MEMORY = (
    "--kv-unified",
    "--swa-full",
    "--model-draft draft.gguf",
    "--spec-type draft-simple",
    "--lora adapter.gguf",
    "--cache-ram 100",
)
REFUSED = {
    "--model-url https://example.org/m.gguf": "https://example.org/m.gguf",
    "--hf-repo ggml-org/models": "localllm serve ggml-org/models",
    "--hf-file m.gguf": "MODEL",
    "--models-dir models": "--port",
    "--models-max 2": "--port",
    "--models-preset p.ini": "--port",
    "--no-models-autoload": "--port",
    "--mmproj-url https://example.org/mm.gguf": "--mmproj FILE",
    "--sleep-idle-seconds 1": "localllm stop",
}


@pytest.mark.parametrize(("line", "expected"), WISHES.items(), ids=WISHES)
def test_what_decides_memory_and_speed_goes_into_the_plan(
    line: str, expected: Mapping[str, Any]
) -> None:
    assert read(words(line)) == PassedOn(wishes=expected, typed=dict.fromkeys(expected, line))


@pytest.mark.parametrize(("line", "expected"), SETTINGS.items(), ids=SETTINGS)
def test_what_faces_the_network_goes_to_the_gateway(line: str, expected: Mapping[str, Any]) -> None:
    assert read(words(line)) == PassedOn(settings=expected, typed=dict.fromkeys(expected, line))


@pytest.mark.parametrize("line", CHILDS)
def test_the_rest_goes_to_llama_server_word_for_word(line: str) -> None:
    assert read(words(line)) == PassedOn(extra_argv=tuple(words(line)))


@pytest.mark.parametrize("line", CHILDS_WITH_MEMORY)
def test_memory_that_the_plan_does_not_count_is_passed_on_with_a_warning(line: str) -> None:
    passed = read(words(line))
    assert passed.extra_argv == tuple(words(line))
    assert [words(line)[0] in warning for warning in passed.warnings] == [True]


@pytest.mark.parametrize(("line", "instead"), REFUSED.items(), ids=REFUSED)
def test_what_would_break_the_gateway_is_refused_and_the_hint_says_what_instead(
    line: str, instead: str
) -> None:
    with pytest.raises(UsageError, match=words(line)[0]) as raised:
        read(words(line))
    assert raised.value.hint is not None
    assert instead in raised.value.hint


def test_a_model_file_is_named_absolutely_and_its_alias_is_told_apart() -> None:
    passed = read(words("--model models/m.gguf --alias tinyllama-2"))
    assert passed.model == str(Path.cwd() / "models/m.gguf")
    assert passed.alias == "tinyllama-2"
    assert passed.extra_argv == ()


def test_no_projector_beside_the_model_is_used_when_none_is_wanted() -> None:
    assert read([]).looks_for_mmproj
    assert not read(["--no-mmproj"]).looks_for_mmproj


# -- the gateway's other options


def test_tls_prefix_and_timeouts_are_the_gateways(tmp_path: Path) -> None:
    line = "--ssl-key-file k.pem --ssl-cert-file c.pem --api-prefix /llm -to 30 --threads-http 4"
    passed = read([*words(line), "--api-key-file", str(tmp_path / "keys")])
    assert passed.settings == {
        "tls_key": Path("k.pem"),
        "tls_cert": Path("c.pem"),
        "api_prefix": "/llm",
        "body_seconds": 30,
        "slow_client_seconds": 30,
        "api_key_file": tmp_path / "keys",
    }
    assert passed.extra_argv == ("--threads-http", "4")


def test_every_field_is_one_that_the_plan_or_the_gateway_has() -> None:
    known = {*vars(Wishes()), *vars(Settings()), "model", "alias"}
    assert {name for names, _ in passed_on._TAKEN.values() for name in names} <= known


def test_keys_are_never_for_a_command_line_and_never_shown() -> None:
    passed = read(["--api-key", f'{KEY},"with,comma",', "--jinja"])
    assert passed.keys == (KEY, "with,comma")
    assert passed.extra_argv == ("--jinja",)
    assert KEY not in repr(passed)
    assert [KEY in warning for warning in passed.warnings] == [False]


def test_a_key_is_not_repeated_where_it_is_spelled_wrongly() -> None:
    with pytest.raises(UsageError) as raised:
        read([f"--api-key={KEY}"])
    assert KEY not in f"{raised.value.message} {raised.value.hint}"


def test_the_key_of_llama_servers_own_variable_counts_too() -> None:
    passed = read(["--api-key", "from-the-flag"], {"LLAMA_API_KEY": KEY})
    assert passed.keys == (KEY, "from-the-flag")
    assert read([], {"LLAMA_API_KEY": KEY}).warnings == ()


# -- how it is spelled


@pytest.mark.parametrize("line", ["-c 512", "--ctx-size 512", "--ctx_size 512"])
def test_every_spelling_of_llama_server_is_known(line: str) -> None:
    assert read(words(line)).wishes == {"n_ctx": 512}


def test_of_the_same_option_the_last_one_counts() -> None:
    assert read(words("-c 512 --ctx-size 1024")).wishes == {"n_ctx": 1024}


def test_a_value_may_look_like_an_option() -> None:
    assert read(words("--alias -x --jinja")).alias == "-x"
    assert read(words("--logit-bias -100 -c 512")).extra_argv == ("--logit-bias", "-100")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-c 0", {}),
        ("-np -1", {}),
        ("-t -1", {}),
        ("-tb 0", {}),
        ("-ngl auto", {}),
        ("-ngl all", {"n_gpu_layers": -1}),
        ("-ngl 0", {"n_gpu_layers": 0}),
        ("-fa 1", {"flash_attn": "on"}),
        ("-fa disabled", {"flash_attn": "off"}),
        ("--rpc a:1,b:2", {"rpc": ("a:1", "b:2")}),
    ],
)
def test_llama_servers_special_values_are_understood(
    line: str, expected: Mapping[str, Any]
) -> None:
    assert read(words(line)).wishes == expected


def test_a_whole_context_that_the_plan_may_cut_is_told() -> None:
    assert ["-c 0" in warning for warning in read(words("-c 0")).warnings] == [True]


@pytest.mark.parametrize(
    "line",
    [
        "-c many",
        "-c -5",
        "-c 1e3",
        "-c 99999999999",
        "-c --jinja",
        "-c",
        "-np 0",
        "-ngl some",
        "-fa maybe",
        "-ctk q9",
        "--port 65536",
        "--host 127.0.0.1,::1",
        "--api-prefix llm",
        "--api-prefix /llm/",
        "-to 0",
        "--api-key",
        "--ctx-size=512",
        "--hf-repo=a/b",
        "-m ~nobodyhere/x.gguf",
        "-mm ~nobodyhere/x.gguf",
        "--ssl-key-file ~nobodyhere/x.pem",
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_in_a_sentence_with_a_hint(line: str) -> None:
    with pytest.raises((UsageError, NotFoundError)) as raised:
        read(words(line))
    assert raised.value.hint
    assert "\n" not in raised.value.message


def test_a_projector_that_is_not_there_is_told() -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.gguf"):
        read(words("-mm nowhere.gguf"))


# -- with our own flags


def test_passed_on_wishes_join_our_own() -> None:
    own = Wishes(quant="Q4_K_M", n_ctx=512)
    joined = read(words("-c 512 -b 64")).with_wishes(own)
    assert joined == Wishes(quant="Q4_K_M", n_ctx=512, n_batch=64)


@pytest.mark.parametrize(
    ("own", "line", "flag"),
    [
        (Wishes(n_ctx=4096), "-c 8192", "--ctx 4096"),
        (Wishes(n_gpu_layers=1), "-ngl 2", "--ngl 1"),
        (Wishes(n_parallel=1), "-np 2", "--parallel 1"),
        (Wishes(type_k="f16", type_v="f16"), "-ctv q8_0", "--kv f16"),
    ],
)
def test_a_contradiction_names_both_flags(own: Wishes, line: str, flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} and {line} after --"):
        read(words(line)).with_wishes(own)


def test_contradicting_settings_and_models_name_both() -> None:
    passed = read(words("--port 9000 --host ::1 -m /m.gguf"))
    assert passed.with_settings({"host": "::1"}) == {"host": "::1", "port": 9000}
    with pytest.raises(UsageError, match="--port 8080 and --port 9000 after --"):
        passed.with_settings({"port": 8080})
    assert passed.with_model(None) == "/m.gguf"
    with pytest.raises(UsageError, match=r"MODEL demo and -m /m\.gguf after --"):
        passed.with_model("demo")
    assert read([]).with_model("demo") == "demo"
    with pytest.raises(UsageError, match="needs a model"):
        read([]).with_model(None)


@pytest.mark.parametrize("own", ["./m.gguf", "m.gguf", str(Path.cwd() / "m.gguf")])
def test_the_same_file_is_no_contradiction_however_it_is_written(own: str) -> None:
    assert read(words("-m ./m.gguf")).with_model(own) == str(Path.cwd() / "m.gguf")


def test_a_file_of_the_name_of_something_else_is_a_contradiction() -> None:
    with pytest.raises(UsageError, match="MODEL demo and -m demo after --"):
        read(words("-m demo")).with_model("demo")


def test_contradicting_origins_are_told_as_they_are_typed() -> None:
    passed = read(words("--cors-origins https://b"))
    with pytest.raises(UsageError, match="--cors-origin https://a and --cors-origins https://b "):
        passed.with_settings({"cors_origins": ("https://a",)})


def test_variables_of_llama_server_that_are_not_heard_are_named() -> None:
    passed = read(["--jinja"], {"LLAMA_ARG_CTX_SIZE": "1", "LLAMA_ARG_HOST": "::", "HOME": "/"})
    assert passed.wishes == {}
    assert ["LLAMA_ARG_CTX_SIZE, LLAMA_ARG_HOST" in each for each in passed.warnings] == [True]


# -- against the real llama-server


@pytest.fixture(scope="module")
def helped(tools: Tools) -> dict[str, tuple[bool, str]]:
    """By option: whether it takes a value, and what `llama-server --help` says of it.

    `-c,    --ctx-size N                     size of the prompt context (default: 0, …`
    """
    text = subprocess.run(
        [tools.path(SERVER), "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    options = {}
    for paragraph in re.split(r"\n(?=-[^\n]*)", text):
        names = re.match(r"((?:-{1,2}[a-zA-Z][\w.-]*(?:, +| |$))+)(\S?)", paragraph, re.MULTILINE)
        if names is not None:
            for name in re.findall(r"-[\w.-]+", names[1]):
                options[name] = (bool(names[2]), paragraph)
    return options


def test_every_option_that_is_known_here_is_one_of_this_llama_servers(
    helped: dict[str, tuple[bool, str]],
) -> None:
    assert len(helped) > 300
    with_value = {*passed_on._TAKEN, "--api-key"}
    alone = set(passed_on._LOOKS_FOR_MMPROJ)
    assert {name for name, (takes, _) in helped.items() if takes} >= with_value
    assert {name for name, (takes, _) in helped.items() if not takes} >= alone
    assert set(helped) >= passed_on._UNPLANNED | set(passed_on._REFUSED)


def test_no_option_that_faces_the_network_or_ends_the_program_reaches_the_child(
    helped: dict[str, tuple[bool, str]],
) -> None:
    telling = re.compile(r"router server|can download|API key|\bSSL\b|to listen|and exit\b")
    reached = set()
    for name, (takes, paragraph) in helped.items():
        if telling.search(paragraph):
            try:
                reached |= {name} & set(read([name, "1"] if takes else [name]).extra_argv)
            except LocalllmError:
                continue
    assert not reached


def test_llama_server_runs_with_what_was_passed_on(tools: Tools) -> None:
    # As llama.cpp's own tests start it, but for the model.
    line = (
        "--port 8080 --temp 0.25 --seed 42 --host 127.0.0.1 --offline --batch-size 64"
        " --ubatch-size 32 --no-slots --alias tinyllama-2 --ctx-size 512 --parallel 2"
        f" -ctk q8_0 -ctv q8_0 -fa on --n-predict 7 --api-key {KEY} --no-jinja --no_ui"
        " --cache-ram 1 --metrics --tags small,test"
    )
    passed = read(words(line))
    found = finding.find_here("demo", None)
    plan = prepare.prepare(found, passed.with_wishes(Wishes()), "serve").plan
    with (
        LlamaServer(tools, plan, extra_argv=passed.extra_argv) as server,
        http_client(server.require_endpoint(), read_timeout_seconds=30) as client,
    ):
        props = client.get("/props").json()
        slots = client.get("/slots")
        metrics = client.get("/metrics")
        cmdline = psutil.Process(server.pid).cmdline()
    assert props["total_slots"] == 2
    chosen = props["default_generation_settings"]
    assert chosen["n_ctx"] == 256
    assert (chosen["params"]["temperature"], chosen["params"]["seed"]) == (0.25, 42)
    assert slots.status_code == 501
    assert metrics.status_code == 200
    assert KEY not in cmdline
