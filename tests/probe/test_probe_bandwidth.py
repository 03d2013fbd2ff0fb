"""The measurement of memory bandwidth and what is kept of it."""

from __future__ import annotations

import json

import pytest

from localllm.hardware import Cpu, Hardware, Memory, System
from localllm.probe import bandwidth
from localllm.probe.bandwidth import buffer_bytes, reachable_cache
from localllm.probe.readers import Measurement, measure, summarise

MIB = 1 << 20
GIB = 1 << 30

MACHINE = Hardware(
    System("Linux", kernel="6.6.1"),
    Cpu(model="AMD EPYC 7763 64-Core Processor", n_logical=4, n_affinity=4),
    Memory(total_bytes=16 * GIB, available_bytes=12 * GIB),
)


@pytest.fixture
def measured(monkeypatch):
    """Measurements to hand out instead of real ones, and the arguments they were asked with."""
    results: list[Measurement] = []
    calls: list[tuple[int, int, int]] = []

    def fake(total_bytes: int, least_bytes: int, n_threads: int, seconds: float) -> Measurement:
        calls.append((total_bytes, least_bytes, n_threads))
        return results[min(len(calls), len(results)) - 1]

    monkeypatch.setattr(bandwidth, "measure", fake)
    monkeypatch.setattr(bandwidth, "is_quiet", lambda: True)
    return results, calls


def test_a_settled_measurement_is_made_once_and_then_remembered(tmp_path, measured):
    results, calls = measured
    results.append(Measurement(40e9, steady=True))
    file = tmp_path / "bandwidth.json"

    first, _ = bandwidth.probe_bandwidth(MACHINE, tmp_path, file)
    second, _ = bandwidth.probe_bandwidth(MACHINE, tmp_path, file)

    assert (first.bandwidth, first.bandwidth_source) == (40e9, "measured")
    assert (second.bandwidth, second.bandwidth_source) == (40e9, "cached")
    assert len(calls) == 1


def test_a_measurement_on_a_busy_machine_is_made_again_and_the_best_is_kept(tmp_path, measured):
    results, calls = measured
    results += [Measurement(25e9, False), Measurement(20e9, False), Measurement(38e9, True)]
    file = tmp_path / "bandwidth.json"

    seen = [bandwidth.probe_bandwidth(MACHINE, tmp_path, file)[0].bandwidth for _ in range(4)]

    assert seen == [25e9, 25e9, 38e9, 38e9]
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("load", "n_measured"),
    [pytest.param(0.1, 1, id="quiet"), pytest.param(3.4, 2, id="others-are-computing")],
)
def test_a_measurement_beside_others_work_is_not_settled(tmp_path, monkeypatch, load, n_measured):
    calls = []

    def fake(*_: float) -> Measurement:
        calls.append(1)
        return Measurement(25e9, steady=True)

    monkeypatch.setattr(bandwidth, "measure", fake)
    monkeypatch.setattr(bandwidth.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(bandwidth.os, "cpu_count", lambda: 4)

    for _ in range(2):
        bandwidth.probe_bandwidth(MACHINE, tmp_path, tmp_path / "bandwidth.json")

    assert len(calls) == n_measured


def test_a_machine_that_is_always_busy_is_not_measured_forever(tmp_path, measured):
    results, calls = measured
    results.append(Measurement(25e9, steady=False))

    for _ in range(8):
        bandwidth.probe_bandwidth(MACHINE, tmp_path, tmp_path / "bandwidth.json")

    assert len(calls) == 5


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"cpu": Cpu(model="another", n_logical=4)}, id="processor"),
        pytest.param({"cpu": Cpu(model=MACHINE.cpu.model, n_logical=2)}, id="usable-cores"),
        pytest.param({"memory": Memory(total_bytes=32 * GIB)}, id="memory-size"),
        pytest.param({"system": System("Linux", kernel="6.6.2")}, id="kernel"),
    ],
)
def test_another_machine_is_measured_anew(other):
    changed = Hardware(
        **{"system": MACHINE.system, "cpu": MACHINE.cpu, "memory": MACHINE.memory} | other
    )

    assert bandwidth.cache_key(changed) != bandwidth.cache_key(MACHINE)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="half-a-file"),
        pytest.param("[]", id="another-document"),
        pytest.param('{"machines": {"KEY": {"bytes_per_second": "fast"}}}', id="no-number"),
        pytest.param('{"machines": {"KEY": {"bytes_per_second": 0, "settled": true}}}', id="zero"),
        pytest.param('{"machines": {"KEY": {"bytes_per_second": NaN, "settled": true}}}', id="nan"),
        pytest.param('{"machines": {"KEY": 5}}', id="no-entry"),
    ],
)
def test_a_damaged_cache_is_measured_over(tmp_path, measured, content):
    measured[0].append(Measurement(40e9, steady=True))
    file = tmp_path / "bandwidth.json"
    file.write_text(content.replace("KEY", bandwidth.cache_key(MACHINE)))

    memory, findings = bandwidth.probe_bandwidth(MACHINE, tmp_path, file)

    assert (memory.bandwidth, memory.bandwidth_source, findings) == (40e9, "measured", ())
    assert json.loads(file.read_text())["machines"]


def test_a_cache_that_cannot_be_written_is_a_finding_and_the_number_still_counts(
    tmp_path, measured
):
    measured[0].append(Measurement(40e9, steady=True))
    (tmp_path / "file").write_text("")

    memory, findings = bandwidth.probe_bandwidth(MACHINE, tmp_path, tmp_path / "file" / "x.json")

    assert memory.bandwidth == 40e9
    assert [f.code for f in findings] == ["probe.bandwidth-cache"]


def test_too_little_free_memory_is_a_finding_and_unknown(tmp_path, measured):
    small = Hardware(MACHINE.system, MACHINE.cpu, Memory(GIB, available_bytes=100 * MIB))

    memory, findings = bandwidth.probe_bandwidth(small, tmp_path, tmp_path / "bandwidth.json")

    assert memory.bandwidth is None
    assert [f.code for f in findings] == ["probe.bandwidth"]
    assert measured[1] == []


def test_a_failed_measurement_is_a_finding_and_unknown(tmp_path, monkeypatch):
    def fail(*_: float) -> Measurement:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bandwidth, "measure", fail)

    memory, findings = bandwidth.probe_bandwidth(MACHINE, tmp_path, tmp_path / "bandwidth.json")

    assert memory.bandwidth is None
    assert "can't start new thread" in findings[0].message


@pytest.mark.parametrize(
    ("cache", "free", "sizes"),
    [
        pytest.param(None, 64 * GIB, (256 * MIB, 64 * MIB), id="unknown-cache"),
        pytest.param(2 * MIB, 64 * GIB, (128 * MIB, 16 * MIB), id="small-cache"),
        pytest.param(96 * MIB, 64 * GIB, (512 * MIB, 192 * MIB), id="large-cache"),
        pytest.param(768 * MIB, 256 * GIB, (3 * GIB, 1536 * MIB), id="two-socket-server"),
        pytest.param(8 * MIB, GIB, (128 * MIB, 16 * MIB), id="an-eighth-of-what-is-free"),
        pytest.param(32 * MIB, 256 * MIB, None, id="too-little-free"),
    ],
)
def test_the_buffer_is_much_larger_than_the_cache_and_small_beside_free_memory(cache, free, sizes):
    assert buffer_bytes(cache, Memory(available_bytes=free)) == sizes


@pytest.mark.parametrize(
    ("n_threads", "expected"),
    [
        pytest.param(1, 18432 + 2048, id="one-thread-fills-one-cache-of-a-level"),
        pytest.param(16, 18432 + 2048 + 1280, id="all-threads-fill-all"),
    ],
)
def test_caches_count_that_the_threads_can_fill(machine, n_threads, expected):
    assert reachable_cache(machine("sysfs/i7-1260p-cores"), n_threads) == expected * 1024


def test_a_machine_that_hides_its_caches_has_none_known(tmp_path):
    assert reachable_cache(tmp_path, 4) is None


def test_a_pass_lasts_from_the_first_start_to_the_last_end_and_the_best_counts():
    spans = [[(0.0, 1.0), (2.0, 2.5), (3.0, 3.5)], [(0.5, 2.0), (2.0, 2.4), (3.0, 3.52)]]

    assert summarise(spans, [100, 100, 100]) == Measurement(pytest.approx(200.0), steady=True)


def test_passes_that_disagree_are_not_steady():
    spans = [[(0.0, 1.0), (1.0, 1.5), (2.0, 3.0)]]

    assert summarise(spans, [100, 100, 100]) == Measurement(200.0, steady=False)


def test_a_pass_of_several_sweeps_counts_them_all():
    assert summarise([[(0.0, 1.0), (1.0, 2.0)]], [100, 300]) == Measurement(300.0, steady=True)


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_a_real_measurement_reads_at_a_believable_rate(n_threads):
    result = measure(32 * MIB, 16 * MIB, n_threads, seconds=0.05)

    assert 1e8 < result.bytes_per_second < 1e13


def test_a_thread_that_cannot_get_its_memory_fails_all_and_hangs_none():
    with pytest.raises(OSError, match="memory"):
        measure(1 << 60, 1 << 60, 2, seconds=0.05)
