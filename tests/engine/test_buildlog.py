"""What is read out of a build's output; the samples were captured from real builds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from localllm.engine.buildlog import (
    Progress,
    ProgressLine,
    clock,
    complaints,
    explain,
    is_network_failure,
    parse_step,
)

DATA = Path(__file__).parents[1] / "data" / "build"


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("  [115/274] /usr/bin/g++ -c x.cpp", (115, 274)),
        ("[1/2] Building CXX object a.o", (1, 2)),
        ("  [0/2] Re-checking globbed directories...", None),
        ("  [9/2] impossible", None),
        ("  see [115/274]", None),
        ("[2024/11/20] date", None),
    ],
)
def test_ninjas_counter_is_read(line: str, step: tuple[int, int] | None) -> None:
    assert parse_step(line) == step


def test_a_real_build_is_told_from_start_to_end() -> None:
    progress, told = Progress(0), []
    for second, line in enumerate((DATA / "wheel-with-ui.log").read_text().splitlines()):
        progress.feed(line, second)
        told.append(progress.line(second))
    assert told[0] == "preparing the engine  0 s"
    assert "fetching the build tools  1 s" in told
    assert "configuring llama.cpp  4 s" in told
    assert "building llama.cpp  0 %  1/274  7 s" in told
    assert "building llama.cpp  41 %  115/274  10 s" in told
    assert any(line.startswith("building llama.cpp and its web UI (npm)  94 %") for line in told)
    assert told[-1].startswith("packing the engine  100 %  274/274")


def test_the_rest_is_estimated_from_the_pace_so_far() -> None:
    progress = Progress(0)
    progress.feed("[1/101] cc", 20)
    assert progress.line(25) == "building llama.cpp  0 %  1/101  25 s"
    progress.feed("[51/101] cc", 80)
    assert progress.line(80) == "building llama.cpp  50 %  51/101  1 min 20 s, about 1 min 0 s left"


def test_a_smaller_counter_in_between_does_not_set_it_back() -> None:
    progress = Progress(0)
    progress.feed("[100/274] cc", 1)
    progress.feed("[1/2] a small build inside the build", 2)
    assert "100/274" in progress.line(3)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (151, "2 min 31 s")]
)
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_compilers_complaint_is_found_and_pips_echo_is_not() -> None:
    found = complaints((DATA / "compile-failed.log").read_text())
    assert found[0].startswith("FAILED: vendor/llama.cpp/ggml")
    assert any("ggml.h:719:51: error: expected primary-expression" in line for line in found)
    assert not any("pip" in line and "exited" in line for line in found)
    assert all(len(line) <= 200 for line in found)


def test_cmakes_complaint_is_taken_with_what_it_says_below() -> None:
    found = complaints((DATA / "configure-failed.log").read_text())
    assert found[0].startswith("CMake Error at")
    assert found[1].startswith("Could NOT find Vulkan")


def test_a_failure_without_a_known_word_is_told_by_its_last_lines() -> None:
    assert complaints("a\nb\n\nc\n", limit=2) == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("/usr/bin/ld: final link failed: No space left on device", "make room"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "PARALLEL_LEVEL=1"),
        ("#error -- unsupported GNU version! gcc versions later than 12", "CUDAHOSTCXX"),
        ("NewConnectionError: Failed to establish a new connection: [Errno -2]", "the network"),
        ("ERROR: No matching distribution found for scikit-build-core", "wheelhouse"),
        ('Target "ggml-cuda" links to:\n CUDA::cublas\nbut the target was not found', "cuBLAS"),
        ("error: expected ';'", None),
    ],
)
def test_well_known_failures_come_with_a_remedy(text: str, remedy: str | None) -> None:
    said = explain(text)
    assert (remedy in (said or "")) if remedy else said is None


def test_an_unreachable_index_is_a_network_failure() -> None:
    assert is_network_failure("Temporary failure in name resolution")
    assert not is_network_failure("error: expected ';'")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_and_taken_away() -> None:
    stream = Terminal()
    line = ProgressLine(stream, lambda text: pytest.fail(f"printed {text}"))
    line("1 %")
    line("2 %")
    assert "\n" not in stream.getvalue()
    line.clear()
    assert stream.getvalue().endswith(" \r")


def test_off_a_terminal_a_line_comes_now_and_then() -> None:
    said: list[str] = []
    line = ProgressLine(io.StringIO(), said.append, every_seconds=3600)
    line("1 %")
    line("2 %")
    assert said == ["1 %"]
