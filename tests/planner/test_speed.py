"""Tokens per second before anything ran, against what others have measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest

from localllm.gguf import parse_header
from localllm.hardware import Accelerator
from localllm.plan import Device
from localllm.planner.placement import Layers, Load, Placement, Step, loads
from localllm.planner.places import HOST, Machine, survey
from localllm.planner.speed import decode_seconds, prompt_seconds
from localllm.weights import read_weights
from tests.planner.fakes import MODEL, POLICY, apple, case, dense, gpu, machine, sparse
from tests.shapes import SHAPES

#: GB/s by the makers' data sheets: bus width times the memory's data rate.
BANDWIDTHS = {
    "3070": 448, "3080": 760, "3080 Ti": 912, "3090": 936, "4070 Ti": 504, "4080": 717,
    "4090": 1008, "RTX 4000 Ada": 360, "RTX 5000 Ada": 576, "RTX 6000 Ada": 960,
    "RTX A6000": 768, "A40": 696, "L40S": 864, "A100 PCIe": 1935, "A100 SXM": 2039,
    "H100 PCIe": 2000, "M1": 68, "M1 Max": 400, "M2 Ultra": 800, "M3 Max": 400,
}  # fmt: skip

#: XiongjieDai/GPU-Benchmarks-on-LLM-Inference, README.md, "LLaMA 3", snapshots of May 2024: all
#: rows of one GPU but 70B F16. Generated and prompt tokens a second, at 1,024 tokens each.
PUBLISHED = """\
3070          8b  Q4_K_M   70.94  2283.62
3080          8b  Q4_K_M  106.40  3557.02
3080 Ti       8b  Q4_K_M  106.71  3556.67
4070 Ti       8b  Q4_K_M   82.21  3653.07
4080          8b  Q4_K_M  106.22  5064.99
4080          8b  F16      40.29  6758.90
3090          8b  Q4_K_M  111.74  3865.39
3090          8b  F16      46.51  4239.64
4090          8b  Q4_K_M  127.74  6898.71
4090          8b  F16      54.34  9056.26
RTX 4000 Ada  8b  Q4_K_M   58.59  2310.53
RTX 4000 Ada  8b  F16      20.85  2951.87
RTX 5000 Ada  8b  Q4_K_M   89.87  4467.46
RTX 5000 Ada  8b  F16      32.67  5835.41
RTX A6000     8b  Q4_K_M  102.22  3621.81
RTX A6000     8b  F16      40.25  4315.18
RTX A6000     70b Q4_K_M   14.58   466.82
RTX 6000 Ada  8b  Q4_K_M  130.99  5560.94
RTX 6000 Ada  8b  F16      51.97  6205.44
RTX 6000 Ada  70b Q4_K_M   18.36   547.03
A40           8b  Q4_K_M   88.95  3240.95
A40           8b  F16      33.95  4043.05
A40           70b Q4_K_M   12.08   239.92
L40S          8b  Q4_K_M  113.60  5908.52
L40S          8b  F16      43.42  2491.65
L40S          70b Q4_K_M   15.31   649.08
A100 PCIe     8b  Q4_K_M  138.31  5800.48
A100 PCIe     8b  F16      54.56  7504.24
A100 PCIe     70b Q4_K_M   22.11   726.65
A100 SXM      8b  Q4_K_M  133.38  5863.92
A100 SXM      8b  F16      53.18   681.47
A100 SXM      70b Q4_K_M   24.33   796.81
H100 PCIe     8b  Q4_K_M  144.49  7760.16
H100 PCIe     8b  F16      67.79 10342.63
H100 PCIe     70b Q4_K_M   25.01   984.06
M1            8b  Q4_K_M    9.72    87.26
M1 Max        8b  Q4_K_M   34.49   355.45
M1 Max        8b  F16      18.43   418.77
M1 Max        70b Q4_K_M    4.09    33.01
M2 Ultra      8b  Q4_K_M   76.28  1023.89
M2 Ultra      8b  F16      36.25  1202.74
M2 Ultra      70b Q4_K_M   12.13   117.76
M3 Max        8b  Q4_K_M   50.74   678.04
M3 Max        8b  F16      22.39   751.49
M3 Max        70b Q4_K_M    7.53    62.88
"""


@dataclass(frozen=True)
class Row:
    """One of the table, beside what the planner would have said."""

    card: str
    shape: str
    quant: str
    decode: float
    prompt: float
    decode_estimated: float
    prompt_estimated: float

    @property
    def is_apple(self) -> bool:
        return self.card.startswith("M")


@cache
def rows() -> list[Row]:
    found = []
    for line in PUBLISHED.splitlines():
        card, shape, quant = line[:14].strip(), *line[14:].split()[:2]
        decode, prompt = (float(number) for number in line[14:].split()[2:])
        found.append(Row(card, shape, quant, decode, prompt, *_estimated(card, shape, quant)))
    return found


@cache
def _layers(shape: str, quant: str) -> Layers:
    return Layers(read_weights([parse_header(SHAPES[shape].header(quant))]))


def _estimated(card: str, shape: str, quant: str) -> tuple[float, float]:
    layers = _layers(shape, quant)
    bandwidth = BANDWIDTHS[card] * 1e9
    device, accelerator = (
        apple(0, bandwidth=bandwidth) if card.startswith("M") else gpu(bandwidth=bandwidth)
    )
    made = survey(machine(None, (device, accelerator)), [device], POLICY)
    n = layers.n_layers + 1
    spread = loads(layers, Placement((device.name,), Step(n), (n,)))
    # Keys and values of 8 heads of 128 in f16; half of the 1,024 tokens on average.
    context = {device.name: layers.n_layers * 512 * 2 * 8 * 128 * 2.0}
    decode = decode_seconds(made, spread, context)
    prompt = prompt_seconds(made, spread)
    assert decode is not None
    assert prompt is not None
    return 1 / decode, 1 / prompt


def test_the_table_is_whole() -> None:
    assert len(rows()) == 45
    assert {row.card for row in rows()} == BANDWIDTHS.keys()


def test_decoding_is_as_fast_as_estimated_within_the_error_that_is_told() -> None:
    """On 44 of the 45 rows; a 70B model on an M1 Max ran at 0.59 of its estimate."""
    beyond = [
        (row.card, row.shape)
        for row in rows()
        if abs(row.decode / row.decode_estimated - 1) > POLICY.speed_error
    ]
    assert beyond == [("M1 Max", "70b")]


def test_estimates_err_to_both_sides() -> None:
    logs = [math.log(row.decode / row.decode_estimated) for row in rows()]
    assert abs(sum(logs) / len(logs)) < math.log(1.1)


def test_most_cards_that_were_faster_with_a_model_are_estimated_faster() -> None:
    """What a choice between two devices needs of an estimate."""
    ordered = [row for row in rows() if (row.shape, row.quant) == ("8b", "Q4_K_M")]
    pairs = [
        (one.decode < other.decode) == (one.decode_estimated < other.decode_estimated)
        for at, one in enumerate(ordered)
        for other in ordered[at + 1 :]
        if max(one.decode, other.decode) > 1.1 * min(one.decode, other.decode)
    ]
    assert sum(pairs) / len(pairs) > 0.9


def test_prompts_are_as_fast_as_estimated_within_a_factor_of_two() -> None:
    """On 43 of 45 rows; one of the other two, 682 tokens a second on an A100, is an outlier."""
    beyond = [
        (row.card, row.quant)
        for row in rows()
        if not 0.5 <= row.prompt / row.prompt_estimated <= 2.0
    ]
    assert beyond == [("RTX 5000 Ada", "F16"), ("A100 SXM", "F16")]


# -- the formula ---------------------------------------------------------------------------------


def _machine(*cards: tuple[Device, Accelerator], host: float | None = 60e9) -> Machine:
    return survey(machine(None, *cards, bandwidth=host), [device for device, _ in cards], POLICY)


def test_places_follow_each_other() -> None:
    """A token's time is the sum over the places, and a little for each crossing."""
    made = _machine(gpu("CUDA0"), gpu("CUDA1"))
    one, other = Load(read_bytes=1e9, n_layers=10), Load(read_bytes=2e9, n_layers=20)
    alone = [decode_seconds(made, {name: load}, {}) for name, load in
             [("CUDA0", one), ("CUDA1", other)]]  # fmt: skip
    both = decode_seconds(made, {"CUDA0": one, "CUDA1": other}, {})
    assert both is not None
    assert sum(seconds or 0.0 for seconds in alone) < both
    assert both == pytest.approx(sum(seconds or 0.0 for seconds in alone), rel=0.05)


def test_the_context_is_read_with_the_weights() -> None:
    made = _machine()
    less = decode_seconds(made, {HOST: Load(read_bytes=1e9)}, {HOST: 1e9})
    assert less == decode_seconds(made, {HOST: Load(read_bytes=2e9)}, {})


def test_what_nobody_knows_is_not_estimated() -> None:
    made = _machine(gpu("CUDA0", bandwidth=None), host=None)
    assert decode_seconds(made, {"CUDA0": Load(1, 1.0, 1.0, 1)}, {}) is None
    assert decode_seconds(made, {HOST: Load(1, 1.0, 1.0, 1)}, {}) is None
    assert prompt_seconds(made, {"CUDA0": Load(1, 1.0, 1.0, 1)}) is None
    assert prompt_seconds(made, {HOST: Load(1, 1.0, 1.0, 1)}) is not None  # by its cores


def test_a_place_that_holds_nothing_takes_no_time() -> None:
    made = _machine(gpu("CUDA0", bandwidth=None))
    assert decode_seconds(made, {HOST: Load(1, 1e9, 1.0, 1), "CUDA0": Load()}, {}) is not None


def test_a_token_of_a_mixture_reads_few_experts() -> None:

    few = sparse()
    all_of_them = dense("Q4_K_M", few.size_bytes // 8)
    speeds = [
        case(gpu(), models=[model]).plan().speed.decode_tokens_per_second
        for model in (few, all_of_them)
    ]
    assert speeds[0] is not None
    assert speeds[1] is not None
    assert speeds[0] > 3 * speeds[1]


def test_an_estimate_says_that_it_is_one() -> None:
    speed = case(gpu(), models=[MODEL]).plan().speed
    assert (speed.source, speed.error) == ("estimated", POLICY.speed_error)
    assert speed.prompt_tokens_per_second is not None
    assert speed.decode_tokens_per_second is not None
    assert speed.prompt_tokens_per_second > speed.decode_tokens_per_second
