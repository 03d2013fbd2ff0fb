"""The cache of engine wheels: whole or absent, never half-true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from localllm import paths
from localllm.engine import wheelcache
from localllm.engine.recipe import BuildError, Recipe

RECIPE = Recipe("0.3.36", "cpu", ("-DA=1",), ("avx2",), "gcc 12.2.0", None, True, "Linux x86_64")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache with blanks" / "engine"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl"
    path.write_bytes(b"a wheel" * 1000)
    return path


def silent(text: str) -> None:
    pytest.fail(f"said {text!r}")


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="default"),
        pytest.param({"XDG_CACHE_HOME": "/tmp/xdg cache"}, id="xdg"),
        pytest.param({"XDG_CACHE_HOME": " "}, id="blank-xdg"),
        pytest.param({"LOCALLLM_HOME": "/tmp/my home"}, id="home"),
        pytest.param({"LOCALLLM_HOME": "~/llm"}, id="tilde"),
    ],
)
def test_it_is_where_localllm_keeps_its_caches(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALLLM_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert wheelcache.engine_cache_dir() == paths.cache_dir() / "engine"


def test_what_is_stored_is_found_again(cache: Path, wheel: Path) -> None:
    stored = wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    found = wheelcache.lookup(cache, RECIPE, silent)
    assert found == stored
    assert found.wheel.read_bytes() == wheel.read_bytes()
    assert (
        json.loads((found.wheel.parent / "key.json").read_text())["recipe"]["version"] == "0.3.36"
    )


def test_another_recipe_is_not_found(cache: Path, wheel: Path) -> None:
    wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    other = Recipe("0.3.37", "cpu", ("-DA=1",), ("avx2",), "gcc 12.2.0")
    assert wheelcache.lookup(cache, other, silent) is None


def test_a_damaged_wheel_is_told_and_removed(cache: Path, wheel: Path) -> None:
    stored = wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    data = bytearray(stored.wheel.read_bytes())
    data[100] ^= 1
    stored.wheel.write_bytes(bytes(data))
    said: list[str] = []
    assert wheelcache.lookup(cache, RECIPE, said.append) is None
    assert "damaged" in said[0]
    assert not stored.wheel.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"wheel": "x"}', '{"wheel": 5, "recipe": []}'])
def test_a_damaged_key_file_is_as_good_as_absent(cache: Path, wheel: Path, text: str) -> None:
    stored = wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    (stored.wheel.parent / "key.json").write_text(text)
    assert wheelcache.lookup(cache, RECIPE, silent) is None
    assert wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None) == wheelcache.lookup(
        cache, RECIPE, silent
    )


def test_an_unfinished_entry_is_invisible_and_swept(cache: Path, wheel: Path) -> None:
    stored = wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    draft = cache / f".{RECIPE.key}-abc"
    stored.wheel.parent.rename(draft)
    assert wheelcache.lookup(cache, RECIPE, silent) is None
    wheelcache.sweep(cache, RECIPE.key)
    assert not draft.exists()


def test_storing_again_replaces(cache: Path, wheel: Path) -> None:
    wheelcache.store(cache, RECIPE, wheel, ui=False, ui_note="npm ci failed")
    wheel.write_bytes(b"newer")
    wheelcache.store(cache, RECIPE, wheel, ui=True, ui_note=None)
    found = wheelcache.lookup(cache, RECIPE, silent)
    assert found is not None
    assert found.ui
    assert found.wheel.read_bytes() == b"newer"
    assert sorted(path.name for path in cache.iterdir()) == [RECIPE.key]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="cannot write the engine cache") as caught:
        wheelcache.store(tmp_path / "file" / "engine", RECIPE, wheel, ui=True, ui_note=None)
    assert caught.value.exit_code == 8


def test_the_lock_keeps_a_second_process_out_and_dies_with_the_first(cache: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time, pathlib; from localllm.engine import wheelcache\n"
            "with wheelcache.locked(pathlib.Path(sys.argv[1]), 'k', lambda s: None):\n"
            "    print('held', flush=True); time.sleep(60)",
            str(cache),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    waited: list[float] = []

    def waiting(seconds: float) -> None:
        waited.append(seconds)
        holder.kill()
        holder.wait()

    with wheelcache.locked(cache, "k", waiting):
        assert waited
    holder.stdout.close()
