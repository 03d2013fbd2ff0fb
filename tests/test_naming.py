"""What a person may type for a model, and what it means."""

from __future__ import annotations

import time

import pytest

from localllm.errors import UsageError
from localllm.naming import ModelRef, parse_ref

READINGS: dict[str, tuple[str | None, ...]] = {
    # text: (kind, repo, revision, quant)
    "demo": ("demo", None, None, None),
    # files
    "model.gguf": ("file", None, None, None),
    "MODEL.GGUF": ("file", None, None, None),
    "./model": ("file", None, None, None),
    "./demo": ("file", None, None, None),
    "./qwen3:8b": ("file", None, None, None),
    "../model.bin": ("file", None, None, None),
    "/models/a b/模型.gguf": ("file", None, None, None),
    "/models/org/repo": ("file", None, None, None),
    "~/models/model": ("file", None, None, None),
    "~friend/model.gguf": ("file", None, None, None),
    ".": ("file", None, None, None),
    "..": ("file", None, None, None),
    "/": ("file", None, None, None),
    "models/sub/model.gguf": ("file", None, None, None),
    "org/repo.gguf": ("file", None, None, None),
    "model-00001-of-00003.gguf": ("file", None, None, None),
    "llava.llamafile": ("file", None, None, None),
    "Llava.LlamaFile": ("file", None, None, None),
    "C:\\models\\model": ("file", None, None, None),
    "c:/models/model": ("file", None, None, None),
    ".\\model": ("file", None, None, None),
    "\\\\server\\share\\model": ("file", None, None, None),
    "with space.gguf": ("file", None, None, None),
    # addresses
    "https://example.org/model.gguf": ("url", None, None, None),
    "https://example.org/model.gguf?download=true": ("url", None, None, None),
    "http://127.0.0.1:8000/m.gguf": ("url", None, None, None),
    "HTTPS://example.org/model.gguf": ("url", None, None, None),
    "https://user:pass@example.org/x": ("url", None, None, None),
    # repositories
    "org/repo": ("hf", "org/repo", None, None),
    "hf:org/repo": ("hf", "org/repo", None, None),
    "ms:org/repo": ("ms", "org/repo", None, None),
    "org/repo:Q4_K_M": ("hf", "org/repo", None, "Q4_K_M"),
    "org/repo:q4_k_m": ("hf", "org/repo", None, "q4_k_m"),
    "org/repo:UD-Q4_K_XL": ("hf", "org/repo", None, "UD-Q4_K_XL"),
    "org/repo@main": ("hf", "org/repo", "main", None),
    "org/repo@main:Q8_0": ("hf", "org/repo", "main", "Q8_0"),
    "ms:Qwen/Qwen3-8B-GGUF@master:Q5_K_M": ("ms", "Qwen/Qwen3-8B-GGUF", "master", "Q5_K_M"),
    "org/repo@0c1e570": ("hf", "org/repo", "0c1e570", None),
    "org/repo@refs/pr/12": ("hf", "org/repo", "refs/pr/12", None),
    "org/repo@v1.0.2:F16": ("hf", "org/repo", "v1.0.2", "F16"),
    "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF": (
        "hf",
        "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
        None,
        None,
    ),
    "01-ai/Yi_1.5": ("hf", "01-ai/Yi_1.5", None, None),
    "_org/_repo": ("hf", "_org/_repo", None, None),
    "demo/demo": ("hf", "demo/demo", None, None),
    # the catalogue
    "qwen3": ("alias", "qwen3", None, None),
    "qwen3:8b": ("alias", "qwen3:8b", None, None),
    "llama3.1:70b-instruct-q4_K_M": ("alias", "llama3.1:70b-instruct-q4_K_M", None, None),
    "phi-4": ("alias", "phi-4", None, None),
    "gemma3:27b_it.v2": ("alias", "gemma3:27b_it.v2", None, None),
    "demo:latest": ("alias", "demo:latest", None, None),
    "qwen3:8b:Q4_K_M": ("alias", "qwen3:8b", None, "Q4_K_M"),
    "qwen3:UD-Q2_K_XL": ("alias", "qwen3", None, "UD-Q2_K_XL"),
}

REFUSED = {
    "nothing": "",
    "a blank": " ",
    "only a tab": "\t",
    "a NUL": "a\0b",
    "a NUL in a path": "./a\0.gguf",
    "a new line": "org/repo\nrm",
    "a new line at the end": "org/repo\n",
    "a carriage return": "org/repo\r",
    "an escape sequence": "qwen3\x1b[31m",
    "a blank before": " org/repo",
    "a blank behind": "org/repo ",
    "a capital alias": "Qwen3:8b",
    "a demo with a capital": "Demo",
    "a flag": "-m",
    "a flag with a value": "--model=x",
    "three parts": "org/repo/sub",
    "no repository name": "repo/",
    "no repository": "org/",
    "hub and nothing": "hf:",
    "hub and one word": "hf:demo",
    "modelscope and one word": "ms:qwen3",
    "an unknown hub": "gh:org/repo",
    "a hub in capitals": "HF:org/repo",
    "two hubs": "hf:ms:org/repo",
    "a file on the hub": "hf:org/repo/model.gguf",
    "a file name for a repository": "hf:model.gguf",
    "a backslash on the hub": "ms:org\\repo",
    "an empty quantization": "org/repo:",
    "an empty revision": "org/repo@",
    "the wrong order": "org/repo:Q4_K_M@main",
    "two quantizations": "org/repo:Q4_0:Q8_0",
    "two revisions": "org/repo@a@b",
    "climbing out by the repository": "org/..",
    "climbing out by the organisation": "hf:../repo",
    "climbing out by the revision": "org/repo@a/../../x",
    "climbing out by the whole revision": "org/repo@../x",
    "climbing out by the quantization": "org/repo:../x",
    "an absolute revision": "org/repo@/etc",
    "an empty part of a revision": "org/repo@a//b",
    "a revision that ends in a slash": "org/repo@refs/",
    "a hidden repository": "org/.git",
    "a flag for a repository": "org/-rf",
    "a question mark": "org/repo?x=1",
    "a percent escape": "org/%2e%2e",
    "a shell variable": "org/$HOME",
    "a command": "org/repo;ls",
    "a star": "org/*",
    "letters of another script": "орг/репо",
    "fullwidth digits": "qwen３",
    "half an address": "https:/example.org",
    "another protocol": "ftp://example.org/model",
    "an alias without a tag": "qwen3:",
}


@pytest.mark.parametrize(("text", "reading"), READINGS.items(), ids=READINGS)
def test_reads_a_reference(text: str, reading: tuple[str | None, ...]) -> None:
    kind, repo, revision, quant = reading
    assert parse_ref(text) == ModelRef(kind, text, repo, revision, quant)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_refuses_what_names_no_model(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ref(text)
    assert caught.value.hint == (
        "name a file (./model.gguf), a repository (org/repo:Q4_K_M), or demo"
    )


def test_a_refusal_quotes_what_was_typed_without_its_control_characters() -> None:
    with pytest.raises(UsageError) as caught:
        parse_ref("qwen3\x1b[31m")
    assert caught.value.message == "'qwen3\\x1b[31m' is not a model reference"


def test_no_part_of_a_repository_reference_climbs_out_of_a_folder() -> None:
    for text, reading in READINGS.items():
        for part in (reading[1:]) if reading[0] in ("hf", "ms") else ():
            for name in (part or "x").split("/"):
                assert name not in ("", ".", ".."), text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 500_000 + "!", id="alias"),
        pytest.param("a/" + "b." * 250_000 + "!", id="repository"),
        pytest.param("a/b@" + "c/" * 250_000 + "!", id="revision"),
        pytest.param("a/b:" + "-" * 500_000, id="quantization"),
    ],
)
def test_a_very_long_reference_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(UsageError):
        parse_ref(text)
    assert time.perf_counter() - started < 1
