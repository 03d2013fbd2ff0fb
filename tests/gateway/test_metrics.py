"""What Prometheus reads, read by its own parser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from localllm.gateway.exchange import Exchange, Outcome
from localllm.gateway.metrics import OTHER, Metrics, merge
from localllm.gateway.status import GpuUse, ReplicaStatus, Status

ANSWERED = Exchange(
    id="1",
    arrived_at=0.0,
    method="POST",
    path="/v1/chat/completions",
    route="/v1/chat/completions",
    generates=True,
    key="team",
    model="demo",
    replica="0",
    status=200,
    queue_seconds=0.015,
    ttft_seconds=0.3,
    total_seconds=1.3,
    n_prompt=30,
    n_cached=10,
    n_tokens=51,
)
OF = {"model": "demo", "replica": "0", "key": "team"}
STATUS = Status("demo", "http://127.0.0.1:8080", "demo", "1", 7, 0.0, 0.0)
#: As llama-server writes it.
PAGE = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1.23457e+06
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:spec_decode_num_accepted_tokens_per_pos_total Accepted tokens per draft position
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 17
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 9
"""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["demo", "gpt-local"])


def render(
    metrics: Metrics,
    status: Status = STATUS,
    lost_lines: int = 0,
    children: Mapping[str, bytes] | None = None,
) -> bytes:
    page, content_type = metrics.render(status, lost_lines, children or {})
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return page


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page that Prometheus would take: each family and each series once."""
    text = page.decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    names = [line.split()[2] for line in types]
    assert sorted(names) == sorted(set(names)), "a family is told twice"
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found
            found[series] = sample.value
    return found


def value(page: bytes, name: str, /, **labels: str) -> float | None:
    return samples(page).get((name, frozenset(labels.items())))


def test_an_answer_is_counted_and_timed_by_model_replica_and_key(metrics):
    metrics.ended(ANSWERED)
    metrics.ended(ANSWERED)
    page = render(metrics)

    labels = {"route": "/v1/chat/completions", "status": "200", "outcome": "answered"}
    assert value(page, "localllm_requests_total", **OF, **labels) == 2
    assert value(page, "localllm_prompt_tokens_total", **OF) == 60
    assert value(page, "localllm_cached_prompt_tokens_total", **OF) == 20
    assert value(page, "localllm_completion_tokens_total", **OF) == 102
    for name, total in (
        ("queue_seconds", 0.03),
        ("ttft_seconds", 0.6),
        ("time_per_output_token_seconds", 0.04),
        ("request_seconds", 2.6),
    ):
        assert value(page, f"localllm_{name}_count", **OF) == 2
        assert value(page, f"localllm_{name}_sum", **OF) == pytest.approx(total)
        assert value(page, f"localllm_{name}_bucket", **OF, le="+Inf") == 2
    assert value(page, "localllm_queue_seconds_bucket", **OF, le="0.005") == 0
    assert value(page, "localllm_queue_seconds_bucket", **OF, le="0.02") == 2


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("refused", 429), ("failed", 500), ("client left", 0), ("answered", 400)],
)
def test_what_got_no_answer_is_counted_and_has_no_total_time(
    metrics: Metrics, outcome: Outcome, status: int
):
    metrics.ended(replace(ANSWERED, outcome=outcome, status=status))
    page = render(metrics)

    labels = {"route": ANSWERED.route, "status": str(status), "outcome": outcome}
    assert value(page, "localllm_requests_total", **OF, **labels) == 1
    assert value(page, "localllm_ttft_seconds_count", **OF) == 1
    assert value(page, "localllm_request_seconds_count", **OF) is None


def test_a_request_that_takes_no_slot_is_counted_and_not_timed(metrics):
    metrics.ended(replace(ANSWERED, route="/health", generates=False))
    page = render(metrics)

    assert {name for name, labels in samples(page) if ("replica", "0") in labels} == {
        "localllm_requests_total"
    }


@pytest.mark.parametrize(
    ("asked", "told"),
    [("demo", "demo"), ("gpt-local", "gpt-local"), ("", "demo"), ("gpt-5", OTHER), ("\n", OTHER)],
)
def test_only_the_served_models_names_are_told(metrics, asked, told):
    metrics.ended(replace(ANSWERED, model=asked))

    page = render(metrics)
    assert value(page, "localllm_ttft_seconds_count", **{**OF, "model": told}) == 1


def test_a_client_cannot_make_the_page_grow(metrics):
    for n in range(10_000):
        metrics.ended(replace(ANSWERED, model=f"model-{n}"))
        if n == 0:
            before = render(metrics)
    page = render(metrics)

    assert samples(page).keys() == samples(before).keys()
    assert value(page, "localllm_ttft_seconds_count", **{**OF, "model": OTHER}) == 10_000


@pytest.mark.parametrize("label", ["route", "key"])
def test_routes_and_keys_are_bounded_in_number(metrics, label):
    for n in range(1000):
        metrics.ended(replace(ANSWERED, **{label: f"{label}-{n}"}, generates=False))
    of = [
        dict(labels)[label]
        for name, labels in samples(render(metrics))
        if "requests" in name and label in dict(labels)
    ]

    assert len(of) == len(set(of)) == 101
    assert OTHER in of


def test_a_model_whose_file_has_a_name_that_is_no_utf_8_can_be_told():
    metrics = Metrics(["caf\udce9"])
    metrics.ended(replace(ANSWERED, model="caf\udce9"))

    page = render(metrics)
    assert value(page, "localllm_ttft_seconds_count", **{**OF, "model": "caf?"}) == 1


def test_two_gateways_in_one_process_do_not_share_their_figures(metrics):
    metrics.ended(ANSWERED)

    assert value(render(Metrics(["demo"])), "localllm_ttft_seconds_count", **OF) is None


BUSY = replace(
    STATUS,
    n_waiting=3,
    rss_bytes=90,
    replicas=(
        ReplicaStatus(
            name="0",
            state="ready",
            n_slots=4,
            n_busy=3,
            load_seconds=1.5,
            rss_bytes=500,
            gpu_bytes={"0000:19:00.0": 700},
        ),
        ReplicaStatus("1", "loading", 4, restarts=2),
    ),
    gpus=(GpuUse('NVIDIA "H200"\\', 0.5, 10, 20), GpuUse("NVIDIA GB10")),
)


def test_what_the_gateway_does_now_is_told(metrics):
    page = render(metrics, BUSY, lost_lines=4)

    assert value(page, "localllm_waiting_requests") == 3
    assert value(page, "localllm_lost_log_lines_total") == 4
    assert value(page, "localllm_slots", replica="0", state="busy") == 3
    assert value(page, "localllm_slots", replica="0", state="free") == 1
    assert value(page, "localllm_replica_up", replica="0") == 1
    assert value(page, "localllm_replica_up", replica="1") == 0
    assert value(page, "localllm_replica_restarts_total", replica="1") == 2
    assert value(page, "localllm_model_load_seconds", replica="0") == 1.5
    assert value(page, "localllm_model_load_seconds", replica="1") is None
    assert value(page, "localllm_resident_bytes", process="gateway") == 90
    assert value(page, "localllm_resident_bytes", process="replica-0") == 500
    assert value(page, "localllm_gpu_replica_bytes", replica="0", address="0000:19:00.0") == 700
    gpu = {"gpu": "0", "name": 'NVIDIA "H200"\\'}
    assert value(page, "localllm_gpu_utilization_ratio", **gpu) == 0.5
    assert value(page, "localllm_gpu_used_bytes", **gpu) == 10
    assert value(page, "localllm_gpu_total_bytes", **gpu) == 20


def test_a_replica_that_went_leaves_nothing_behind(metrics):
    render(metrics, BUSY)
    page = render(metrics, replace(BUSY, replicas=BUSY.replicas[:1], gpus=()))

    assert value(page, "localllm_replica_up", replica="1") is None
    assert not any("gpu" in dict(labels) for _, labels in samples(page))


def test_no_series_of_creation_times_is_written(metrics):
    metrics.ended(ANSWERED)

    assert b"_created" not in render(metrics, BUSY)


def test_llama_servers_own_figures_carry_their_replicas_name(metrics):
    metrics.ended(ANSWERED)
    second = PAGE.replace(b"processing 2", b"processing 5")
    page = render(metrics, BUSY, children={"0": PAGE, "1": second})

    assert value(page, "llamacpp:requests_processing", replica="0") == 2
    assert value(page, "llamacpp:requests_processing", replica="1") == 5
    assert value(page, "llamacpp:prompt_tokens_total", replica="0") == 1_234_570
    name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    assert value(page, name, replica="1", position="1") == 9
    assert page.count(b"# HELP llamacpp:requests_processing Number of requests processing\n") == 1
    assert value(page, "localllm_ttft_seconds_count", **OF) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('a 1', 'a{replica="0"} 1', id="plain"),
        pytest.param('a{} 1', 'a{replica="0"} 1', id="no-labels"),
        pytest.param('a{b="c"} 1', 'a{replica="0",b="c"} 1', id="a-label"),
        pytest.param('a{b="c",} 1', 'a{replica="0",b="c",} 1', id="a-comma-at-the-end"),
        pytest.param('a{b="}\\" {",c=""} 1', 'a{replica="0",b="}\\" {",c=""} 1', id="quotes"),
        pytest.param('a  -1.5e-07\t', 'a{replica="0"} -1.5e-07', id="blanks"),
        pytest.param('a 1 1795000000000', 'a{replica="0"} 1', id="a-time-is-left-out"),
        pytest.param('a nan', 'a{replica="0"} nan', id="nan"),
        pytest.param('a +Inf', 'a{replica="0"} +Inf', id="inf"),
        pytest.param('a -nan', '', id="minus-nan-of-c++"),
        pytest.param('a', '', id="no-value"),
        pytest.param('a one', '', id="no-number"),
        pytest.param('a 1.2.3', '', id="two-points"),
        pytest.param('a{b="c} 1', '', id="an-open-quote"),
        pytest.param('a{b="c"d="e"} 1', '', id="no-comma"),
        pytest.param('{"error": "unauthorized"}', '', id="json"),
        pytest.param('<html>', '', id="html"),
        pytest.param('# a remark', '', id="a-remark"),
        pytest.param('\x00\ufffd', '', id="rubbish"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out_and_the_rest_is_told(line, expected):
    page = merge({"0": f"x 1\n{line}\ny 2".encode()}).decode()

    told = [of for of in page.splitlines() if of not in ('x{replica="0"} 1', 'y{replica="0"} 2')]
    assert len(page.splitlines()) - len(told) == 2
    assert told == ([expected] if expected else [])
    assert len(samples(page.encode())) == 2 + len(told)


def test_a_childs_histogram_stays_in_one_family():
    one = b"""\
# TYPE x histogram
x_bucket{le="1"} 1
x_bucket{le="+Inf"} 2
x_sum 3
x_count 2
# TYPE x_counted gauge
x_counted nan
"""
    page = merge({"0": one, "1": one, "2": b""})
    families = {of.name: of for of in text_string_to_metric_families(page.decode())}

    assert families["x"].type == "histogram"
    assert len(families["x"].samples) == 8
    assert [math.isnan(of.value) for of in families["x_counted"].samples] == [True, True]
    assert page.count(b"# TYPE") == 2


def test_a_family_that_nobody_tells_anything_of_is_not_there():
    assert merge({"0": b"# HELP x y\n# TYPE x gauge\n"}) == b""
    assert merge({}) == b""
