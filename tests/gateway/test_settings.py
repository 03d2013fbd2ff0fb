"""serve.yaml: what is taken from it, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.errors import UsageError
from localllm.gateway.settings import FIXED, Settings, parse_settings, read_settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "api_key_file: ~nobodyhere/keys", "api_key_file is in the home", id="nobody's home"
        ),
        pytest.param("port: 80800", "port must be at most 65535, not 80800", id="no port"),
        pytest.param("port: -1", "port must be at least 0, not -1", id="a negative port"),
        pytest.param("api_prefix: llm", "api_prefix must be a path, not 'llm'", id="no slash"),
        pytest.param("api_prefix: /llm/", "api_prefix must be a path, not '/llm/'", id="two"),
        pytest.param("api_prefix: /a%20b", "api_prefix must be a path", id="escaped"),
        pytest.param("api_prefix: /", "api_prefix must be a path", id="the root"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_settings(f"host: 127.0.0.1\n{text}\n", "serve.yaml")
    assert raised.value.message.startswith(f"serve.yaml, line 2: {told}")


@pytest.mark.parametrize("prefix", ["/llm", "/llm/v-1.0/~me"])
def test_a_prefix_is_a_path_without_a_slash_at_its_end(prefix: str) -> None:
    assert parse_settings(f"api_prefix: {prefix}", "serve.yaml").api_prefix == prefix


@pytest.mark.parametrize("port", [0, 65535])
def test_every_port_is_taken(port: int) -> None:
    assert parse_settings(f"port: {port}", "serve.yaml").port == port


def test_paths_are_meant_from_the_files_own_folder_or_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "serve.yaml"
    path.write_text("api_key_file: keys\nlog_dir: ~/logs\n")
    read = read_settings(path)
    assert read.api_key_file == tmp_path / "keys"
    assert read.log_dir == tmp_path / "home" / "logs"


def test_what_is_looked_at_when_the_server_starts_is_fixed() -> None:
    assert {"drain_seconds", "insecure"} <= FIXED
    assert set(vars(Settings())) > FIXED
