"""What a reference names: folders of quantizations, and models that were looked at before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_localllm
from tests.ggufs import Llama, Projector

USAGE, MISSING, NETWORK, UNSOUND = 2, 3, 5, 6
SHAPE = Llama(n_layers=4, n_embd=256, n_head=4, n_head_kv=4, n_ff=512, n_ctx_train=4096)
KINDS = {"Q8_0": "Q8_0", "Q4_K_M": "Q4_K", "F16": "F16"}


def write(folder: Path, name: str, quant: str) -> Path:
    return replace(SHAPE, kind=KINDS[quant], file_type=quant).write(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three quantizations of one model."""
    models = tmp_path / "models"
    models.mkdir()
    for quant in KINDS:
        write(models, f"Some-Model-1B-{quant}.gguf", quant)
    return models


def planned(*argv: str) -> dict[str, Any]:
    done = run_localllm("plan", *argv, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_folder_is_planned_as_one_model_in_several_quantizations(folder: Path) -> None:
    document = planned(str(folder))
    candidates = {each["quant"]: each for each in document["candidates"]}
    assert candidates.keys() == KINDS.keys()
    chosen = [quant for quant, each in candidates.items() if each["why_not"] is None]
    assert chosen == [document["chosen"]["quant"]]
    sizes = {path.stem.split("-")[-1]: path.stat().st_size for path in folder.iterdir()}
    assert {quant: each["size_bytes"] for quant, each in candidates.items()} == sizes


def test_a_quantization_that_is_asked_for_is_taken(folder: Path) -> None:
    for quant in KINDS:
        document = planned(str(folder), "--quant", quant.lower())
        assert document["chosen"]["quant"] == quant
        assert document["argv"][2] == str(folder / f"Some-Model-1B-{quant}.gguf")


def test_a_quantization_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    done = run_localllm("plan", str(folder), "--quant", "Q2_K")
    assert done.returncode == MISSING
    assert "there is no 'Q2_K' here" in done.stderr
    assert all(quant in done.stderr for quant in KINDS)


def test_a_projector_in_the_folder_is_no_candidate(folder: Path) -> None:
    (folder / "mmproj-Some-Model-1B-F16.gguf").write_bytes(b"not looked at")
    assert len(planned(str(folder))["candidates"]) == len(KINDS)


def test_a_damaged_file_among_sound_ones_is_a_candidate_that_cannot_be_run(folder: Path) -> None:
    damaged = folder / "Some-Model-1B-Q8_0.gguf"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    document = planned(str(folder))
    candidates = {each["quant"]: each for each in document["candidates"]}
    assert not candidates["Q8_0"]["fits"]
    assert "Some-Model-1B-Q8_0.gguf" in candidates["Q8_0"]["why_not"]
    assert document["chosen"]["quant"] != "Q8_0"


def test_a_folder_of_damaged_files_is_as_bad_as_one_of_them(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    done = run_localllm("plan", str(folder))
    assert done.returncode == UNSOUND
    assert ".gguf" in done.stderr


def test_a_folder_of_different_models_is_refused(folder: Path) -> None:
    write(folder, "Other-Model-1B-Q8_0.gguf", "Q8_0")
    done = run_localllm("plan", str(folder))
    assert done.returncode == USAGE
    assert "2 different models: Other-Model-1B-Q8_0.gguf, Some-Model-1B-" in done.stderr


def test_a_folder_without_models_is_told(tmp_path: Path) -> None:
    done = run_localllm("plan", str(tmp_path))
    assert done.returncode == MISSING
    assert f"there is no GGUF model in {tmp_path}" in done.stderr


def test_a_folder_chats_with_its_best(folder: Path) -> None:
    argv = ["chat", str(folder), "-p", "x", "-n", "4", "--chat-template", "chatml"]
    done = run_localllm(*argv)
    assert done.returncode == 0, done.stderr


def test_a_model_that_was_planned_once_is_planned_again_without_its_files(folder: Path) -> None:
    before = planned(str(folder))
    for path in folder.iterdir():
        path.unlink()
    after = planned(str(folder))
    assert after["chosen"] == before["chosen"]
    for candidate in (*before["candidates"], *after["candidates"]):
        # On a busy machine its memory is measured anew each time.
        del candidate["decode_tokens_per_second"]
    assert after["candidates"] == before["candidates"]
    first = after["reasons"][0]
    assert first["field"] == "model"
    assert first["because"].startswith("not here now: planned from its header as it was on")


def test_what_is_not_there_is_not_chatted_with_from_memory(folder: Path) -> None:
    path = folder / "Some-Model-1B-Q8_0.gguf"
    planned(str(path))
    path.unlink()
    assert planned(str(path))["chosen"]["quant"] == "Q8_0"
    done = run_localllm("chat", str(path), "-p", "x")
    assert done.returncode == MISSING
    assert f"there is no file {path}" in done.stderr


def test_what_was_never_looked_at_is_not_known(tmp_path: Path) -> None:
    done = run_localllm("plan", str(tmp_path / "none.gguf"))
    assert done.returncode == MISSING
    done = run_localllm("plan", "some/repository-GGUF", "--offline")
    assert done.returncode == NETWORK
    assert "offline mode" in done.stderr
    assert run_localllm("chat", "some/repository-GGUF", "-p", "x").returncode == MISSING


def test_a_projector_is_part_of_the_plan(tmp_path: Path) -> None:
    text = Llama(n_embd=64).write(tmp_path / "text.gguf")
    projector = Projector(n_embd_text=64).write(tmp_path / "mmproj.gguf")
    alone = planned(str(text))
    document = planned(str(text), "--mmproj", str(projector))
    assert document["chosen"]["mmproj"] == str(projector)
    assert "--mmproj" in document["argv"]
    assert document["memory"][0]["model_bytes"] > alone["memory"][0]["model_bytes"]
    done = run_localllm("plan", str(text), "--mmproj", str(tmp_path / "none.gguf"))
    assert done.returncode == MISSING


def test_what_is_remembered_is_written_again_only_when_the_model_changed(
    folder: Path, home: Path
) -> None:
    def written() -> list[int]:
        return [path.stat().st_ino for path in (home / "cache" / "outlines").iterdir()]

    planned(str(folder))
    before = written()
    planned(str(folder))
    assert written() == before
    (folder / "Some-Model-1B-F16.gguf").unlink()
    planned(str(folder))
    assert written() != before
