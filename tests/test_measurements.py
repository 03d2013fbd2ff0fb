"""The file of measurements: kept, shared, bounded, and never in a run's way."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm import measurements, paths
from localllm.measured import Experience, Key, Measurement
from localllm.measurements import load, record
from localllm.recovery import Concession
from tests.conftest import PATIENCE_SECONDS
from tests.unprivileged import unprivileged

MEASURED = Measurement(
    extra_bytes={"Host": -5, "CUDA0": 600 << 20},
    peak_bytes={"Host": 100, "CUDA0": 9 << 30},
    decode_tokens_per_second=49.1,
    prompt_tokens_per_second=900,
    n_decoded=256,
    n_prompt=512,
    concessions=(
        Concession({"n_ubatch": 256}, "micro-batch 512 -> 256"),
        Concession({"type_k": "q8_0", "type_v": "q8_0"}, "KV cache f16 -> q8_0"),
        Concession({"n_gpu_layers": 0, "devices": ()}, "layers on the device 1 -> 0"),
        Concession({"tensor_overrides": ("a=CPU",)}, "layers with experts on the host 1 -> 2"),
    ),
    when="2026-11-20T12:00:00Z",
)


def key(n_ctx: int = 8192) -> Key:
    return Key(("A GPU 550.1",), "0.3.36", "Ein Modell µ", (("n_ctx", str(n_ctx)), ("rpc", "[]")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "measurements.json"


def test_what_is_recorded_is_what_the_next_start_knows(file: Path) -> None:
    assert record(file, key(), MEASURED) is None
    assert load(file).find(key()) == MEASURED


def test_a_file_of_before_there_were_concessions_is_read(file: Path) -> None:
    record(file, key(), MEASURED)
    document = json.loads(file.read_text())
    (entry,) = document["measurements"].values()
    del entry["concessions"]
    file.write_text(json.dumps(document))
    assert load(file).find(key()) == replace(MEASURED, concessions=())


@pytest.mark.parametrize(
    "changes",
    [
        {"n_ctx": "4096"},
        {"n_ctx": True},
        {"n_ctx": -1},
        {"type_k": 8},
        {"devices": "CUDA0"},
        {"devices": [0]},
        {"model": "another"},
        [],
    ],
    ids=str,
)
def test_a_concession_that_is_none_costs_its_own_entry_only(file: Path, changes: object) -> None:
    for n_ctx in (8192, 4096):
        record(file, key(n_ctx), MEASURED)
    document = json.loads(file.read_text())
    document["measurements"][key().text]["concessions"][0]["changes"] = changes
    file.write_text(json.dumps(document))
    assert load(file).find(key()) is None
    assert load(file).find(key(4096)) == MEASURED


def test_a_second_measurement_is_merged_into_the_first(file: Path) -> None:
    for n_bytes in (700, 800, 600):
        record(file, key(), Measurement({"Host": n_bytes}))
    assert load(file).find(key()) == Measurement({"Host": 800})


def test_it_lies_with_what_runs_leave_behind(home: Path) -> None:
    assert paths.measurements_file() == home / "state" / "measurements.json"


def test_file_and_lock_are_the_owners_alone(file: Path) -> None:
    record(file, key(), MEASURED)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes == {"measurements.json": 0o600, "measurements.json.lock": 0o600}


def test_without_a_file_nothing_is_known(file: Path) -> None:
    assert load(file) == Experience()


def test_the_newest_keys_are_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_MOST_KEYS", 3)
    for n_ctx in (1, 2, 3, 1, 4):
        record(file, key(n_ctx), MEASURED)
    assert list(load(file).measurements) == [key(3), key(1), key(4)]


DAMAGE = {
    "empty": b"",
    "cut short": b'{"schema_version": 1, "measurem',
    "not UTF-8": b"\xff\xfe\x00",
    "nested too deep": b"[" * 100_000,
    "a list": b"[]",
    "no version": b'{"measurements": {}}',
    "a version of true": b'{"schema_version": true, "measurements": {}}',
    "measurements that are none": b'{"schema_version": 1, "measurements": []}',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_and_told_and_loses_no_measurement(
    file: Path, damage: bytes
) -> None:
    file.parent.mkdir()
    file.write_bytes(damage)
    assert load(file) == Experience()
    finding = record(file, key(), MEASURED)
    assert finding is not None
    assert finding.code == "measurements.damaged"
    aside = file.with_name("measurements.json.damaged")
    assert str(aside) in finding.message
    assert aside.read_bytes() == damage
    assert load(file).find(key()) == MEASURED
    assert record(file, key(), MEASURED) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("devices", "A GPU"),
        ("engine", None),
        ("shape", {"n_ctx": 1}),
        ("extra_bytes", {"Host": 1.5}),
        ("extra_bytes", {"Host": True}),
        ("decode_tokens_per_second", 0),
        ("decode_tokens_per_second", float("nan")),
        ("prompt_tokens_per_second", "fast"),
        ("n_decoded", -1),
        ("when", 3),
    ],
)
def test_a_bad_entry_costs_itself_alone(file: Path, field: str, value: Any) -> None:
    record(file, key(1), MEASURED)
    record(file, key(2), MEASURED)
    document = json.loads(file.read_text())
    document["measurements"][key(1).text][field] = value
    file.write_text(json.dumps(document))
    assert list(load(file).measurements) == [key(2)]
    assert record(file, key(3), MEASURED) is None
    assert list(load(file).measurements) == [key(2), key(3)]


def test_the_file_of_a_newer_localllm_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    newer = b'{"schema_version": 2, "measurements": {}}'
    file.write_bytes(newer)
    assert load(file) == Experience()
    finding = record(file, key(), MEASURED)
    assert finding is not None
    assert (finding.code, finding.level) == ("measurements.unkept", "warn")
    assert "newer localllm" in finding.message
    assert file.read_bytes() == newer


def test_a_place_that_cannot_be_written_is_told_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    finding = record(tmp_path / "a file" / "measurements.json", key(), MEASURED)
    assert finding is not None
    assert finding.code == "measurements.unkept"
    assert "a file" in finding.message


def test_a_file_that_may_not_be_read_is_no_knowledge_and_no_error(file: Path) -> None:
    record(file, key(), MEASURED)
    file.chmod(0)
    with unprivileged():
        assert load(file) == Experience()
        finding = record(file, key(), MEASURED)
    assert finding is not None
    assert finding.code == "measurements.unkept"


def test_a_lock_that_is_never_given_back_is_waited_for_and_then_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "_LOCK_SECONDS", 0.05)
    record(file, key(1), MEASURED)
    with measurements._locked(file.with_name("measurements.json.lock")):
        finding = record(file, key(2), MEASURED)
    assert finding is not None
    assert "measurements.json.lock" in finding.message
    assert list(load(file).measurements) == [key(1)]


#: Waits for its standard input to end, so that all begin at once; then records its own keys.
RECORDER = """
import sys
from pathlib import Path
from localllm.measured import Key, Measurement
from localllm.measurements import record
def key(n_ctx):
    return Key(("A GPU 550.1",), "0.3.36", "Ein Modell µ", (("n_ctx", str(n_ctx)), ("rpc", "[]")))
print("ready", flush=True)
sys.stdin.read()
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    assert record(Path(sys.argv[1]), key(n), Measurement({"Host": n})) is None
    assert record(Path(sys.argv[1]), key(-1), Measurement({"Host": n})) is None
"""


def test_processes_that_record_at_once_lose_nothing(file: Path) -> None:
    n_each = 12
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, file, str(first), str(first + n_each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in range(0, 4 * n_each, n_each)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.communicate(timeout=PATIENCE_SECONDS)
    assert [child.returncode for child in children] == [0] * 4
    known = load(file).measurements
    assert {k: m.extra_bytes["Host"] for k, m in known.items()} == {
        **{key(n): n for n in range(4 * n_each)},
        key(-1): 4 * n_each - 1,
    }
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "measurements.json",
        "measurements.json.lock",
    ]


def test_a_recorder_killed_in_the_middle_leaves_a_whole_file_and_no_lock(file: Path) -> None:
    record(file, key(1), MEASURED)
    code = RECORDER.replace("sys.stdin.read()", "import os, json; json.dump = lambda *_, **__: "
                            "(print('writing', flush=True), sys.stdin.read())")  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", code, file, "2", "3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in "ab"] == ["ready\n", "writing\n"]
        child.kill()
    assert record(file, key(3), MEASURED) is None
    assert list(load(file).measurements) == [key(1), key(3)]
