"""llama.cpp's own tests of llama-server, once with llama-server, once with `localllm serve`.

    .venv/bin/python -m benchmarks.conformance --suite LLAMA.CPP/tools/server/tests

What passes with llama-server should pass with the gateway before it. The suite is llama.cpp's and
stays where it is: a copy of it runs in a temporary folder. It wants models from the internet; here
small local ones stand in, most of them with random weights, so what a text says is not judged; a
few tests depend on it all the same, and the plan's threads alone make another text. A test that
fails in both runs counts as the same where it fails in the same line. Needs pytest, requests, wget,
filelock, numpy and openai.

This module is also the pytest plugin of both runs: it notes how each test ended, and how long each
server took to end after SIGTERM (the suite gives it 5 s).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

WAYS = ("llama-server", "gateway")
#: Longer than anything that does not hang: starting a server may take 60 s, says the suite.
TEST_SECONDS = 120
#: Where the plugin writes, and what stands in for the suite's downloads (both in plugin runs only).
_NOTES, _DOWNLOADS = "CONFORMANCE_NOTES", "CONFORMANCE_DOWNLOADS"

#: Files of the suite that are not run, and why.
LEFT_OUT = {
    "test_router.py": "a router of several models: one gateway serves one model",
    "test_sleep.py": "--sleep-idle-seconds is refused",
}
#: Tests that pass with llama-server and are meant to fail with the gateway, and why.
EXCEPTIONS = {
    "test_basic.py::test_server_multiple_addresses": "--host with a list is refused: one address",
    "test_metrics.py::test_metrics_disabled": "/metrics is always there",
    "test_security.py::test_cors_options*": "no web page may use the gateway that is not listed",
    "test_security.py::test_cors_origins_localhost_rejects*": "a refused preflight is a 403",
    "test_security.py::test_cors_origins_defaults_to_localhost*": "no page is listed by default",
    "test_kv_keep_only_active.py::*": "the test looks for llama-server's log on standard output;"
    " here it is engine.log in the run folder",
    "test_proxy.py::test_mcp_proxy_no_content": "llama-server sends a chunked body after a 204,"
    " which RFC 9112 (6.3) rules out and aiohttp's client refuses",
}

#: Stands where the suite looks for llama-server: names local files where it is told a repository.
_STAND_IN = """#!{python} -IS
import os, sys
program, models = {program!r}, {models!r}
args, repo, file, has_model = [], "", "", False
words = iter(sys.argv[1:])
for word in words:
    if word == "--hf-repo":
        repo = next(words)
    elif word == "--hf-file":
        file = next(words)
    elif word == "--mmproj-url":
        next(words)
    elif word != "--offline":
        has_model = has_model or word == "--model"
        args.append(word)
if not has_model:
    args += models[repo + "/" + file]
model = args[args.index("--model") + 1]
os.execv(program[0], [model if word == "MODEL" else word for word in program] + args)
"""


# -- the models that stand in


def make_models(folder: Path, tools: Path) -> dict[str, list[str]]:
    """By "repository/file" as the suite names them, the arguments that llama-server gets instead.

    "/" is for the servers of the suite that begin without a model.
    """
    from localllm import demo
    from tests.architectures.table import ARCHITECTURES
    from tests.ggufs import Llama, Projector, TensorSpec, write_gguf

    known = {architecture.id: architecture for architecture in ARCHITECTURES}
    bert, moe = known["bert"], known["llama-moe"]
    sees, projector = folder / "sees.gguf", folder / "mmproj.gguf"
    fills, embeds, ranks = folder / "fills.gguf", folder / "embeds.gguf", folder / "ranks.gguf"
    stories = folder / "stories.gguf"
    stories.write_bytes(_endless(demo.model_path().read_bytes()))
    Llama().write(sees)
    Projector(image_size=128).write(projector)  # 64 tokens: tests count on more than 32
    parts = ("pre", "suf", "mid", "rep", "sep")
    middle = {f"tokenizer.ggml.fim_{part}_token_id": 300 + n for n, part in enumerate(parts)}
    write_gguf(fills, {**Llama().metadata(), **middle}, Llama().tensors())
    words = {**bert.metadata(), **_word_pieces(bert.sizes.vocab), "bert.attention.causal": False}
    write_gguf(embeds, {**words, "bert.pooling_type": 2}, bert.tensors())
    head = replace(bert, ends=f"{bert.ends}, cls embd embd, cls.bias embd, cls.output embd 1")
    write_gguf(ranks, {**words, "bert.pooling_type": 4}, head.tensors())
    moe = replace(moe, sizes=replace(moe.sizes, ctx=2048))
    experts = moe.write(folder)
    write_gguf(
        folder / "moe_shakespeare15M.gguf",
        {
            "general.type": "adapter",
            "general.architecture": "llama",
            "adapter.type": "lora",
            "adapter.lora.alpha": 8.0,
        },
        [
            TensorSpec("blk.0.attn_q.weight.lora_a", (moe.sizes.embd, 4)),
            TensorSpec("blk.0.attn_q.weight.lora_b", (4, moe.sizes.names()["q"])),
        ],
    )
    # Its own draft: of a stranger's it would accept nothing.
    shutil.copy(experts, folder / "stories15M-q4_0.gguf")
    split = [str(tools / "llama-gguf-split"), "--split", "--split-max-tensors", "20"]
    subprocess.run(
        [*split, str(demo.model_path()), str(folder / "parts")], check=True, capture_output=True
    )
    first = next(folder.glob("parts-00001-of-*.gguf"))
    return {
        name: ["--model", *(str(word) for word in words)]
        for name, words in {
            "/": (demo.model_path(),),
            "ggml-org/test-model-stories260K/": (stories,),
            "ggml-org/models/tinyllamas/split/stories15M-q8_0-00001-of-00003.gguf": (first,),
            "ggml-org/test-model-stories260K-infill/": (fills,),
            "ggml-org/models/bert-bge-small/ggml-model-f16.gguf": (embeds,),
            "ggml-org/models/jina-reranker-v1-tiny-en/ggml-model-f16.gguf": (ranks,),
            "ggml-org/stories15M_MOE/stories15M_MOE-F16.gguf": (experts,),
            "ggml-org/tinygemma3-GGUF:Q8_0/": (sees, "--mmproj", projector),
        }.items()
    }


def _endless(demo: bytes) -> bytes:
    """The demo model where what ends an answer is another token, one that it hardly ever writes.

    The suite counts on a model that goes on and on.
    """
    key, kind = b"tokenizer.ggml.eos_token_id", struct.pack("<I", 4)
    ends, unused = struct.pack("<I", 2047), struct.pack("<I", 2045)  # <|im_end|>, <|endoftext|>
    for old, new in (
        (b"<|im_end|>", b"<|im_cut|>"),  # by its name, llama.cpp would know it
        (b"tokenizer.ggml.eot_token_id", b"tokenizer.ggml.cut_token_id"),
        (key + kind + ends, key + kind + unused),
    ):
        assert old in demo, f"the demo model has changed: no {old!r} in it"
        demo = demo.replace(old, new)
    return demo


def _word_pieces(n_vocab: int) -> dict[str, Any]:
    """A vocabulary as BERT has it: single characters, at the beginning of a word and inside."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    visible = [chr(code) for code in range(33, 127)]
    tokens = [*special, *(f"\u2581{one}" for one in visible), *visible]
    tokens += [f"\u2581filler{number}" for number in range(n_vocab - len(tokens))]
    ids = {"padding": 0, "unknown": 1, "cls": 2, "bos": 2, "seperator": 3, "eos": 3, "mask": 4}
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(special) + [1] * (n_vocab - len(special)),
        **{f"tokenizer.ggml.{name}_token_id": number for name, number in ids.items()},
    }


# -- the two runs


def run_suite(
    suite: Path, way: str, models: Mapping[str, list[str]], folder: Path, only: Sequence[str]
) -> dict[str, Any]:
    """One run of a copy of the suite.

    Args:
        suite: llama.cpp's tools/server/tests.
        way: one of WAYS.
        models: see make_models.
        folder: scratch.
        only: file names of the suite; none for all but LEFT_OUT.

    Returns:
        "tests": by test, [outcome, where it failed]; "stop_seconds": of each server.
    """
    from localllm.engine.locate import SERVER, require_tools

    tests = _copy(suite, folder / way)
    program = {
        "llama-server": [str(require_tools(SERVER).path(SERVER))],
        "gateway": [sys.executable, "-m", "localllm", "serve", "MODEL", "--"],
    }[way]
    stand_in = folder / f"stand-in-{way}"
    text = _STAND_IN.format(python=sys.executable, program=program, models=dict(models))
    stand_in.write_text(text, encoding="utf-8")
    stand_in.chmod(0o755)
    notes = folder / f"{way}.jsonl"
    home = folder / "home"
    here = str(Path(__file__).parent.parent)
    files = [
        f"unit/{path.name}"
        for path in sorted((tests / "unit").glob("test_*.py"))
        if (path.name in only if only else path.name not in LEFT_OUT)
    ]
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-m", "not slow"]
    argv += ["-p", "no:cacheprovider", "-p", "benchmarks.conformance", *files]
    path = [str(tests), here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with (folder / f"{way}.log").open("wb") as log:
        subprocess.run(
            argv,
            cwd=tests,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(part for part in path if part),
                "LLAMA_SERVER_BIN_PATH": str(stand_in),
                "PORT": str(_free_port()),
                "LOCALLLM_HOME": str(home),
                "HF_HOME": str(home / "hf"),
                "HF_HUB_OFFLINE": "1",
                _NOTES: str(notes),
                _DOWNLOADS: str(folder),
            },
        )
    found: dict[str, Any] = {"tests": {}, "stop_seconds": []}
    for line in notes.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        if "stop_seconds" in note:
            found["stop_seconds"].append(note["stop_seconds"])
        else:
            found["tests"][note["test"]] = (note["outcome"], note["where"])
    return found


def _copy(suite: Path, root: Path) -> Path:
    """The suite where its relative paths to templates and pictures hold."""
    tests = root / "tools" / "server" / "tests"
    shutil.copytree(suite, tests, ignore=shutil.ignore_patterns("__pycache__", "tmp"))
    (tests / "tmp").mkdir()
    for name in ("models", "tools/mtmd"):
        (root / name).symlink_to(suite.parents[2] / name)
    return tests


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- the plugin


def _note(**what: Any) -> None:
    with open(os.environ[_NOTES], "a", encoding="utf-8") as notes:
        notes.write(json.dumps(what) + "\n")


def pytest_configure() -> None:
    """Before the tests import it: the suite's own module, without the internet."""
    import requests
    import utils  # the suite's

    folder = Path(os.environ[_DOWNLOADS])
    picture = Path.cwd().parents[1] / "mtmd" / "test-1.jpeg"  # all that the suite fetches itself
    stop, get = utils.ServerProcess.stop, requests.get

    def timed_stop(server: Any) -> None:
        ends = server.process is not None and server.process.poll() is None
        began = time.monotonic()
        stop(server)
        if ends:
            _note(stop_seconds=time.monotonic() - began)

    def local_get(url: str, **options: Any) -> Any:
        if not url.startswith("https://"):
            return get(url, **options)
        answer = requests.Response()
        answer.status_code, answer._content = 200, picture.read_bytes()
        return answer

    requests.get = local_get
    utils.ServerProcess.stop = timed_stop
    utils.ServerPreset.load_all = staticmethod(lambda: None)
    utils.download_file = lambda url, _=None: str(folder / url.rpartition("/")[2])
    utils.match_regex = lambda _, text: isinstance(text, str)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """A test that hangs fails."""

    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {TEST_SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(TEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes how it ended: its call, or whatever else failed or was skipped."""
    if report.when != "call" and report.outcome == "passed":
        return
    where = ""
    told: Any = report.longrepr
    if report.outcome == "failed" and hasattr(told, "reprcrash"):
        # The line of the test, and then what was raised, perhaps deeper down.
        places = [entry.reprfileloc for entry in told.reprtraceback.reprentries]
        line = next((at.lineno for at in places if at and "test_" in at.path), 0)
        where = f"{line}: {told.reprcrash.message.splitlines()[0][:200]}"
    _note(test=report.nodeid.removeprefix("unit/"), outcome=report.outcome, where=where)


# -- what came out


def compare(bare: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The tests of both runs by what became of them.

    Args:
        bare: with llama-server: by test, its outcome and where it failed.
        ours: with the gateway.

    Returns:
        Lists of tests, and where they fail only, or differently, by test where they do.
    """
    same: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    differ: dict[str, dict[str, Any]] = {"line": {}, "bare": {}, "gateway": {}}
    for test in sorted(bare.keys() | ours.keys()):
        outcome, where = bare.get(test, ("failed", "not run"))
        other, there = ours.get(test, ("failed", "not run"))
        if (outcome, where.partition(":")[0]) == (other, there.partition(":")[0]):
            same[outcome].append(test)
        elif outcome == other:
            differ["line"][test] = [where, there]
        elif other == "failed":
            differ["bare"][test] = there
        else:
            differ["gateway"][test] = where
    return {
        "passed on both": same["passed"],
        "skipped on both": same["skipped"],
        "failed on both in the same line": same["failed"],
        "failed on both in different lines": differ["line"],
        "only with llama-server, as meant": {
            test: reason for test in differ["bare"] if (reason := _exception(test))
        },
        "only with llama-server": {
            test: where for test, where in differ["bare"].items() if not _exception(test)
        },
        "only with the gateway": differ["gateway"],
    }


def _exception(test: str) -> str:
    """Why it is meant to fail with the gateway; "" where it is not."""
    # "[" begins a set in a pattern, and parameters in a test's name.
    name = test.replace("[", "(")
    return next((why for pattern, why in EXCEPTIONS.items() if fnmatch(name, pattern)), "")


def show(compared: Mapping[str, Any], stops: Mapping[str, Sequence[float]]) -> None:
    """The table, and by name what is not the same."""
    for name, tests in compared.items():
        print(f"{len(tests):5}  {name}")
    for name in list(compared)[3:]:
        for test, what in compared[name].items():
            print(f"\n{name}: {test}\n    {what}")
    for way, seconds in stops.items():
        if seconds:
            print(
                f"\n{way}: {len(seconds)} servers told to stop, median"
                f" {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", type=Path, required=True, help="llama.cpp's tools/server/tests")
    parser.add_argument("--only", nargs="+", default=(), help="files of the suite: test_basic.py")
    parser.add_argument("--keep", type=Path, help="a new folder to work in, kept with its logs")
    arguments = parser.parse_args()
    from benchmarks.common import store
    from localllm.engine.locate import SERVER, require_tools

    with tempfile.TemporaryDirectory(prefix="ll-") as scratch:
        folder = arguments.keep or Path(scratch) / "runs"
        folder.mkdir(parents=True)
        models = make_models(folder, require_tools(SERVER).folder)
        suite = arguments.suite.resolve()
        runs = {way: run_suite(suite, way, models, folder, arguments.only) for way in WAYS}
    compared = compare(*(run["tests"] for run in runs.values()))
    stops = {way: run["stop_seconds"] for way, run in runs.items()}
    show(compared, stops)
    if not arguments.only:
        result = {
            "n": {name: len(tests) for name, tests in compared.items()},
            "stop_seconds": {
                way: {"n": len(of), "median": statistics.median(of), "longest": max(of)}
                for way, of in stops.items()
            },
            "left_out": LEFT_OUT,
            "different": {name: compared[name] for name in list(compared)[3:]},
        }
        store("conformance", result)


if __name__ == "__main__":
    main()
