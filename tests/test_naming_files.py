"""What the names of files in a repository mean, and which of them are safe to write.

The expected readings are in tests/data/naming, one file per kind of uploader, written by hand:
    path | kind | quantization | shard/shards
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from localllm.errors import IntegrityError
from localllm.naming import FileName, check_repo_path, read_file_name
from localllm.quants import FORK_ONLY, find_quant, ladder

TABLES = sorted((Path(__file__).parent / "data" / "naming").glob("*.txt"))
READINGS = {
    path: (kind, quant, shard)
    for table in TABLES
    for line in table.read_text("utf-8").splitlines()
    if line and not line.startswith("#")
    for path, kind, quant, shard in [line.split(" | ")]
}
QUANTS = [*(rung.name for rung in ladder()), *FORK_ONLY]


@pytest.mark.parametrize(("path", "reading"), READINGS.items(), ids=READINGS)
def test_reads_a_name(path: str, reading: tuple[str, str, str]) -> None:
    name = read_file_name(path)
    shard = "-" if name.shard is None else f"{name.shard}/{name.n_shards}"
    assert (name.kind, name.quant or "-", shard) == reading
    assert name.path == path
    assert name.folder == path.rpartition("/")[0]


def test_there_are_hundreds_of_names_each_once() -> None:
    lines = sum(
        bool(line) and not line.startswith("#")
        for table in TABLES
        for line in table.read_text("utf-8").splitlines()
    )
    assert lines == len(READINGS) > 500


@pytest.mark.parametrize(
    "pattern", ["Model-7B-{}.gguf", "model.{}.gguf", "a_{}.gguf", "{}/m.gguf", "F16-7B {} v2.gguf"]
)
def test_every_quantization_is_read_in_any_place_and_case(pattern: str) -> None:
    for quant in QUANTS:
        for spelled in (quant, quant.lower()):
            assert read_file_name(pattern.format(spelled)).quant == quant


@pytest.mark.parametrize("glued", ["X{}", "7{}", "{}X", "{}7"])
def test_a_quantization_glued_to_a_word_is_none(glued: str) -> None:
    """It may still be a shorter one behind its own dash, or a longer one; not the one glued."""
    for quant in QUANTS:
        name = f"Model-{glued.format(quant)}-chat.gguf"
        assert read_file_name(name).quant != quant, name


@pytest.mark.parametrize("other", ["F16", "Q4_0", "Q8_0", "IQ4_NL"])
def test_the_last_quantization_counts(other: str) -> None:
    for quant in QUANTS:
        assert read_file_name(f"Model-{other}-{quant}.gguf").quant == quant
        assert read_file_name(f"{other}/Model-{quant}.gguf").quant == quant


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("BF16.gguf", "BF16"),
        ("m-BF16.gguf", "BF16"),
        ("m-IQ4_NL.gguf", "IQ4_NL"),
        ("m-IQ2_M.gguf", "IQ2_M"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m-PQ2_0.gguf", "PQ2_0"),
        ("m-IQ4_K.gguf", "IQ4_K"),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("m-Q4_0_8_8.gguf", "Q4_0_8_8"),
        ("m-Q4_K_XL.gguf", "Q4_K_XL"),
        ("m-Q8_0_L.gguf", "Q8_0_L"),
        ("m-Q8_KV.gguf", "Q8_KV"),
    ],
)
def test_a_longer_name_is_not_cut_to_a_shorter_one(path: str, quant: str) -> None:
    assert read_file_name(path).quant == quant


def test_every_quantization_of_the_tables_has_a_place_or_a_reason() -> None:
    for path, (_, quant, _) in READINGS.items():
        if quant != "-":
            found = find_quant(re.sub(r"_R\d+$", "", quant))
            assert found is not None, path


@pytest.mark.parametrize(
    ("path", "stem", "base"),
    [
        ("Qwen3-4B-UD-Q4_K_XL.gguf", "Qwen3-4B-UD-Q4_K_XL", "qwen3-4b"),
        ("UD/Qwen3-4B-Q8_0-00002-of-00003.gguf", "Qwen3-4B-Q8_0", "qwen3-4b"),
        ("Lexi-V2.i1-IQ4_XS.gguf", "Lexi-V2.i1-IQ4_XS", "lexi-v2"),
        ("Stheno-Q5_K_M-imat.gguf", "Stheno-Q5_K_M-imat", "stheno"),
        ("phi-3-mini-q4.gguf", "phi-3-mini-q4", "phi-3-mini"),
        ("mmproj-Qwen2.5-VL-7B-Instruct-f16.gguf", "mmproj-Qwen2.5-VL-7B-Instruct-f16",
         "qwen2.5-vl-7b-instruct"),
        ("Qwen2.5-VL-7B-Instruct.mmproj-Q8_0.gguf", "Qwen2.5-VL-7B-Instruct.mmproj-Q8_0",
         "qwen2.5-vl-7b-instruct"),
        ("mtp-Qwen3.6-27B-Q8_0.gguf", "mtp-Qwen3.6-27B-Q8_0", "qwen3.6-27b"),
        ("mmproj-F16.gguf", "mmproj-F16", ""),
        ("mmproj-model-f16.gguf", "mmproj-model-f16", ""),
        ("ggml-model-Q4_K_M.gguf", "ggml-model-Q4_K_M", ""),
        ("Q4_K_M.gguf", "Q4_K_M", ""),
        ("Meta.Q6_K.llamafile", "Meta.Q6_K", "meta"),
        ("通义千问-7B-Q4_K_M.gguf", "通义千问-7B-Q4_K_M", "通义千问-7b"),
    ],
)  # fmt: skip
def test_the_stem_and_the_models_own_name(path: str, stem: str, base: str) -> None:
    name = read_file_name(path)
    assert (name.stem, name.base) == (stem, base)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4 was withdrawn from llama.cpp"),
        ("m-IQ4_KSS.gguf", "IQ4_KSS is a type of a fork of llama.cpp"),
        ("m-Q4_K_R4.gguf", "Q4_K_R4 is a type of a fork of llama.cpp"),
        ("m-IQ1_S_R4.gguf", "IQ1_S_R4 is a type of a fork of llama.cpp"),
        ("m-Q4_0-00003-of-00002.gguf", "there is no shard 3 of 2"),
        ("m-Q4_0-00000-of-00002.gguf", "there is no shard 0 of 2"),
        ("m-Q4_0-00001-of-99999.gguf", "there is no shard 1 of 99999"),
        ("m-Q4_0-1-of-2.gguf", "llama.cpp numbers shards with five digits"),
        ("m-Q4_0.gguf.part1of2",
         "it is a piece of a file that was cut up without llama-gguf-split"),
        ("m-Q4_0.gguf-split-a",
         "it is a piece of a file that was cut up without llama-gguf-split"),
        ("m-Q4_0.gguf", None),
        ("m-UD-Q6_K_S.gguf", None),
        ("m-Q4_K_P.gguf", None),
        ("m-q4.gguf", None),
        ("m.gguf", None),
        ("m-Q4_0-00002-of-00002.gguf", None),
        ("mmproj-F16.gguf", None),
    ],
)  # fmt: skip
def test_says_why_a_file_is_of_no_use(path: str, reason: str | None) -> None:
    assert read_file_name(path).unusable == reason


def test_the_readings_are_the_whole_of_a_file_name() -> None:
    assert read_file_name("UD-Q2_K_XL/GLM-5-UD-Q2_K_XL-00001-of-00006.gguf") == FileName(
        path="UD-Q2_K_XL/GLM-5-UD-Q2_K_XL-00001-of-00006.gguf",
        folder="UD-Q2_K_XL",
        kind="model",
        quant="UD-Q2_K_XL",
        shard=1,
        n_shards=6,
        stem="GLM-5-UD-Q2_K_XL",
        base="glm-5",
    )


# Paths that a listing may have but no disk of ours.

_WINDOWS = "which Windows takes for something else"
HOSTILE = {
    "nothing": ("", "has no name"),
    "up": ("../m.gguf", "climbs with '..'"),
    "up and up": ("../../../etc/passwd", "climbs with '..'"),
    "up in the middle": ("a/../m.gguf", "climbs with '..'"),
    "up at the end": ("a/..", "climbs with '..'"),
    "only up": ("..", "climbs with '..'"),
    "here": ("./m.gguf", "climbs with '.'"),
    "here in the middle": ("a/./m.gguf", "climbs with '.'"),
    "three dots": (".../m.gguf", "ends a name with '.', which Windows drops"),
    "up with a blank": (".. /m.gguf", "ends a name with ' ', which Windows drops"),
    "absolute": ("/etc/passwd", "is absolute"),
    "two slashes": ("//server/share/m.gguf", "is absolute"),
    "only a slash": ("/", "is absolute"),
    "an empty part": ("a//m.gguf", "has an empty part"),
    "a slash at the end": ("a/", "has an empty part"),
    "a backslash": ("a\\m.gguf", "holds a backslash"),
    "up with backslashes": ("..\\..\\m.gguf", "holds a backslash"),
    "a share": ("\\\\server\\share\\m.gguf", "holds a backslash"),
    "a long-path prefix": ("\\\\?\\C:\\m.gguf", "holds a backslash"),
    "a backslash at the end": ("m.gguf\\", "holds a backslash"),
    "a drive": ("C:/m.gguf", f"holds ':', {_WINDOWS}"),
    "a drive and no slash": ("C:m.gguf", f"holds ':', {_WINDOWS}"),
    "a drive in a folder": ("a/c:/m.gguf", f"holds ':', {_WINDOWS}"),
    "a stream": ("m.gguf:hidden", f"holds ':', {_WINDOWS}"),
    "a typed stream": ("m.gguf::$DATA", f"holds ':', {_WINDOWS}"),
    "an address": ("https://example.org/m.gguf", f"holds ':', {_WINDOWS}"),
    "a star": ("*.gguf", f"holds '*', {_WINDOWS}"),
    "a question mark": ("m.gguf?download=true", f"holds '?', {_WINDOWS}"),
    "a quotation mark": ('m".gguf', f"holds '\"', {_WINDOWS}"),
    "a pipe": ("m|sh.gguf", f"holds '|', {_WINDOWS}"),
    "less": ("m<.gguf", f"holds '<', {_WINDOWS}"),
    "greater": ("m>x.gguf", f"holds '>', {_WINDOWS}"),
    "a NUL": ("m.gguf\0.txt", "holds the unprintable character U+0000"),
    "a new line": ("m\n.gguf", "holds the unprintable character U+000A"),
    "a new line at the end": ("m.gguf\n", "holds the unprintable character U+000A"),
    "a carriage return": ("m\r.gguf", "holds the unprintable character U+000D"),
    "a tab": ("m\t.gguf", "holds the unprintable character U+0009"),
    "an escape sequence": ("\x1b[2Jm.gguf", "holds the unprintable character U+001B"),
    "a bell": ("m\a.gguf", "holds the unprintable character U+0007"),
    "a backspace": ("m\b.gguf", "holds the unprintable character U+0008"),
    "delete": ("m\x7f.gguf", "holds the unprintable character U+007F"),
    "a C1 control": ("m\x9b.gguf", "holds the unprintable character U+009B"),
    "a next line": ("m\x85.gguf", "holds the unprintable character U+0085"),
    "right to left": ("m\u202efugg.exe", "holds the unprintable character U+202E"),
    "an isolate": ("m\u2066.gguf", "holds the unprintable character U+2066"),
    "a zero-width space": ("m\u200b.gguf", "holds the unprintable character U+200B"),
    "up with a zero-width joiner": (".\u200d./m.gguf", "holds the unprintable character U+200D"),
    "a byte order mark": ("\ufeffm.gguf", "holds the unprintable character U+FEFF"),
    "a line separator": ("m\u2028.gguf", "holds the unprintable character U+2028"),
    "a paragraph separator": ("m\u2029.gguf", "holds the unprintable character U+2029"),
    "half a letter": ("m\ud800.gguf", "is not Unicode text"),
    "bytes that were no text": (b"m\xff.gguf".decode("utf-8", "surrogateescape"),
                                "is not Unicode text"),
    "a dot at the end": ("m.gguf.", "ends a name with '.', which Windows drops"),
    "a folder with a dot at the end": ("a./m.gguf", "ends a name with '.', which Windows drops"),
    "a blank at the end": ("m.gguf ", "ends a name with ' ', which Windows drops"),
    "a folder with a blank at the end": ("a /m.gguf", "ends a name with ' ', which Windows drops"),
    "only a blank": (" ", "ends a name with ' ', which Windows drops"),
    "a device": ("CON", "names the device 'CON' on Windows"),
    "a device with a suffix": ("nul.gguf", "names the device 'nul' on Windows"),
    "a device with two suffixes": ("aux.tar.gz", "names the device 'aux' on Windows"),
    "a printer": ("prn.gguf", "names the device 'prn' on Windows"),
    "a folder that is a device": ("com1/m.gguf", "names the device 'com1' on Windows"),
    "a port": ("LPT9.gguf", "names the device 'LPT9' on Windows"),
    "a superscript port": ("COM².gguf", "names the device 'COM²' on Windows"),
    "a device with a blank": ("nul .gguf", "names the device 'nul' on Windows"),
    "the console's input": ("CONIN$", "names the device 'CONIN$' on Windows"),
    "an escaped dot": ("%2e%2e/m.gguf", "hides a character as '%2e'"),
    "an escaped slash": ("..%2Fm.gguf", "hides a character as '%2F'"),
    "an escaped backslash": ("..%5cm.gguf", "hides a character as '%5c'"),
    "an escaped NUL": ("m.gguf%00.txt", "hides a character as '%00'"),
    "a name too long": ("a" * 256, "has a part longer than 255 bytes"),
    "a Chinese name too long": ("模" * 86, "has a part longer than 255 bytes"),
    "a path too long": ("/".join(["a" * 99] * 11), "is longer than 1000 bytes"),
    "a path far too long": ("a/" * 500_000, "is longer than 1000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_refuses_a_path_that_leaves_its_folder(path: str, reason: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_repo_path(path)
    assert caught.value.message == f"the repository lists a file {path[:100]!r}, which {reason}"
    assert caught.value.hint == "no file of this name is written; tell the repository's owner"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("path", [path for path, _ in HOSTILE.values()], ids=HOSTILE)
def test_a_refused_path_is_never_a_model(path: str) -> None:
    for hostile in (path, f"{path}/m-Q4_0.gguf"):
        name = read_file_name(hostile)
        assert name.kind == "other"
        assert name.unusable is not None
        assert name.quant is None


def test_the_table_is_long() -> None:
    assert len(HOSTILE) >= 60


def test_real_paths_are_safe() -> None:
    for path in READINGS:
        check_repo_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "console.gguf",
        "nullify-7B.gguf",
        "com10.gguf",
        "com.gguf",
        "auxiliary/m.gguf",
        "m.nul",
        "..m.gguf",
        "m..gguf",
        ".hidden/m.gguf",
        " m.gguf",
        "a b/c d.gguf",
        "m~1.gguf",
        "$HOME.gguf",
        "`id`.gguf",
        "m;rm -rf.gguf",
        "-rf.gguf",
        "100%.gguf",
        "m%20n.gguf",
        "m#1.gguf",
        "m&n.gguf",
        "m'n.gguf",
        "m(1)[2]{3}.gguf",
        "模型/量化.gguf",
        "e\u0301.gguf",
        "🦙.gguf",
        "a" * 255,
        "/".join(["a" * 99] * 10),
    ],
)
def test_odd_but_harmless_paths_pass(path: str) -> None:
    check_repo_path(path)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("Q4_0-" * 200_000 + ".gguf", id="quantizations"),
        pytest.param("-00001-of" * 100_000 + ".gguf", id="shards"),
        pytest.param("a" * 1_000_000, id="letters"),
        pytest.param("- " * 490 + ".gguf", id="blanks"),
        pytest.param("Q4_K_M-" * 140 + ".gguf", id="as many as fit"),
        pytest.param("/".join(["Q4_0"] * 199), id="folders"),
    ],
)
def test_long_names_are_read_at_once(path: str) -> None:
    started = time.perf_counter()
    read_file_name(path)
    assert time.perf_counter() - started < 1
