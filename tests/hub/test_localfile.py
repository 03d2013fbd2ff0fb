"""Models that are files on this disk: what is read of them, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localllm.errors import AccessError, GgufError, NotFoundError, UsageError
from localllm.gguf import MemorySource, parse_header
from localllm.hub.localfile import FileSource, open_folder, open_model, read_header
from localllm.weights import read_weights
from tests.ggufs import Llama, header_bytes
from tests.unprivileged import unprivileged

SMALL = Llama()


def test_reads_a_file_on_the_disk(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path / "model.gguf")
    header = read_header(path)
    assert header.file_bytes == path.stat().st_size
    assert header == parse_header(MemorySource(path.read_bytes()))


def test_a_model_is_described_by_its_header(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path / "model.gguf")
    model = open_model(path, "./model.gguf", "file").model
    assert (model.name, model.architecture, model.quant) == ("random llama", "llama", "F32")
    assert (model.n_layers, model.n_ctx_train) == (2, 2048)
    assert (model.size_bytes, model.path) == (path.stat().st_size, str(path))
    assert model.has_chat_template
    assert model.is_generative


def test_any_part_of_a_split_model_stands_for_all_of_it(tmp_path: Path) -> None:
    keys = {**SMALL.metadata(), "split.count": 2}
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in paths:
        path.write_bytes(header_bytes(keys, []))
    model = open_model(paths[1], "m", "file").model
    assert model.path == str(paths[0])
    assert model.size_bytes == sum(path.stat().st_size for path in paths)


def test_a_model_comes_with_the_place_of_its_weights(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path / "model.gguf")
    opened = open_model(path, "m", "file")
    assert opened.weights == read_weights([read_header(path)])
    assert opened.weights.n_layers == 2
    assert opened.unusable is None
    assert len(opened.outlines) == 1


def test_the_weights_of_a_split_model_are_those_of_all_its_parts(tmp_path: Path) -> None:
    keys = {**SMALL.metadata(), "split.count": 2}
    tensors = SMALL.tensors()
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path, some in zip(paths, (tensors[:9], tensors[9:]), strict=True):
        header = header_bytes(keys, some)
        data = sum(-(-tensor.n_bytes // 32) * 32 for tensor in some)
        path.write_bytes(header + bytes(data))
    whole = SMALL.write(tmp_path / "whole.gguf")
    assert open_model(paths[1], "m", "file").weights == open_model(whole, "m", "file").weights


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(header_bytes({**SMALL.metadata(), "split.count": 2}, []))
    with pytest.raises(GgufError, match="one of 2 parts"):
        open_model(path, "m", "file")


def test_reads_the_demo_model(demo_path: Path) -> None:
    model = open_model(demo_path, "demo", "demo").model
    assert model.is_generative
    assert model.has_chat_template


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file .*absent\.gguf$"):
        read_header(tmp_path / "absent.gguf")


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder, not a GGUF file") as caught:
        read_header(tmp_path)
    assert caught.value.hint == "name the .gguf file inside it"


def test_a_path_through_a_file_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotFoundError, match="Not a directory"):
        read_header(tmp_path / "file" / "model.gguf")


def test_a_name_too_long_for_the_disk_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="File name too long"):
        read_header(tmp_path / ("x" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(UsageError, match="is a pipe or a device, not a GGUF file"):
        read_header(tmp_path / "pipe.gguf")


def test_a_file_that_may_not_be_read_is_an_access_error(home: Path) -> None:
    home.chmod(0o755)
    path = SMALL.write(home / "model.gguf")
    path.chmod(0)
    with unprivileged(), pytest.raises(AccessError, match="may not be read") as caught:
        read_header(path)
    assert caught.value.hint == f"chmod u+r {path}, or ask its owner"


def test_a_file_is_closed_after_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("Once upon a time")
    with (
        FileSource(tmp_path / "text.gguf") as source,
        pytest.raises(GgufError, match=r"text\.gguf"),
    ):
        parse_header(source)
    with pytest.raises(ValueError, match="closed"):
        source.read(0, 1)


# -- folders -------------------------------------------------------------------------------------


def in_folder(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        SMALL.write(folder / name)


def labels(folder: Path) -> list[str]:
    return [Path(opened.model.path).name for opened in open_folder(folder, "f")]


def test_a_folder_holds_the_quantizations_of_a_model(tmp_path: Path) -> None:
    in_folder(tmp_path, "m-Q4_K_M.gguf", "m-Q8_0.gguf", "Q2_K/m-Q2_K.gguf")
    (tmp_path / "README.md").write_text("a model")
    assert sorted(labels(tmp_path)) == ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"]


def test_projectors_and_importance_matrices_are_left_aside(tmp_path: Path) -> None:
    in_folder(tmp_path, "m-Q8_0.gguf", "mmproj-m-F16.gguf", "m-imatrix.gguf")
    assert labels(tmp_path) == ["m-Q8_0.gguf"]


def test_the_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    keys = {**SMALL.metadata(), "split.count": 2}
    for number in (1, 2):
        name = f"m-Q8_0-0000{number}-of-00002.gguf"
        (tmp_path / name).write_bytes(header_bytes(keys, []))
    assert labels(tmp_path) == ["m-Q8_0-00001-of-00002.gguf"]


def test_a_damaged_one_is_told_and_leaves_the_others(tmp_path: Path) -> None:
    in_folder(tmp_path, "m-Q8_0.gguf")
    (tmp_path / "m-Q4_K_M.gguf").write_bytes(b"GGUF")
    opened = {each.model.quant: each for each in open_folder(tmp_path, "f")}
    assert opened.keys() == {"F32", "Q4_K_M"}  # the sound one's header knows better than its name
    assert opened["F32"].unusable is None
    assert opened["Q4_K_M"].unusable is not None
    assert "m-Q4_K_M.gguf" in opened["Q4_K_M"].unusable


def test_a_folder_of_damaged_ones_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "m-Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(GgufError, match=r"m-Q8_0\.gguf"):
        open_folder(tmp_path, "f")


def test_a_folder_without_a_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no GGUF model in"):
        open_folder(tmp_path, "f")


def test_a_folder_of_different_models_is_refused_with_their_names(tmp_path: Path) -> None:
    in_folder(tmp_path, "alpha-Q8_0.gguf", "beta-Q8_0.gguf")
    with pytest.raises(UsageError, match="2 different models") as caught:
        open_folder(tmp_path, "f")
    assert "alpha-Q8_0.gguf" in caught.value.message
    assert "beta-Q8_0.gguf" in caught.value.message
