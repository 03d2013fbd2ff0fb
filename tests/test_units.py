"""Sizes, rates and durations as a person writes and reads them."""

from __future__ import annotations

import pytest

from localllm.errors import UsageError
from localllm.units import (
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_rate,
    format_seconds,
    parse_bytes,
    parse_rate,
)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        pytest.param(None, "unknown", id="unknown"),
        pytest.param(0, "0 B", id="a measured zero"),
        pytest.param(1, "1 B", id="one"),
        pytest.param(1023, "1023 B", id="last byte count"),
        pytest.param(KIB, "1.0 KiB", id="first KiB"),
        pytest.param(1536, "1.5 KiB", id="a decimal"),
        pytest.param(100 * KIB, "100 KiB", id="no decimal from 100 on"),
        pytest.param(int(99.96 * KIB), "100 KiB", id="rounds up to 100"),
        pytest.param(MIB - 1, "1.0 MiB", id="never 1024 KiB"),
        pytest.param(int(9.1 * GIB), "9.1 GiB", id="GiB"),
        pytest.param(24 * GIB, "24.0 GiB", id="a GPU"),
        pytest.param(5 << 40, "5.0 TiB", id="TiB"),
        pytest.param(3 << 50, "3.0 PiB", id="PiB"),
        pytest.param(4096 << 50, "4096 PiB", id="beyond the last unit"),
        pytest.param(-512 * MIB, "-512 MiB", id="a lack"),
    ],
)
def test_prints_a_size(n_bytes: int | None, text: str) -> None:
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        pytest.param("0", 0, id="zero"),
        pytest.param("1048576", MIB, id="bare bytes"),
        pytest.param("10B", 10, id="bytes with a unit"),
        pytest.param("1k", KIB, id="small letter"),
        pytest.param("24G", 24 * GIB, id="bare letter is binary"),
        pytest.param("24Gi", 24 * GIB, id="i without B"),
        pytest.param("24GiB", 24 * GIB, id="GiB"),
        pytest.param("24 gib", 24 * GIB, id="small letters and a space"),
        pytest.param("24GB", 24 * 10**9, id="GB is decimal"),
        pytest.param("512mb", 512 * 10**6, id="mb is decimal"),
        pytest.param("9.5 GiB", 9 * GIB + 512 * MIB, id="decimals"),
        pytest.param("0.5K", 512, id="below one"),
        pytest.param("1.0009k", 1024, id="rounded down to a whole byte"),
        pytest.param("2.01MB", 2_010_000, id="decimals that a float cannot hold"),
        pytest.param("9007199254740993", 2**53 + 1, id="more digits than a float has"),
        pytest.param("2T", 2 << 40, id="TiB"),
        pytest.param("1P", 1 << 50, id="PiB"),
        pytest.param("  7M  ", 7 * MIB, id="spaces around"),
    ],
)
def test_reads_a_size(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("G", id="unit alone"),
        pytest.param("-1G", id="negative"),
        pytest.param("1.G", id="no decimals behind the point"),
        pytest.param(".5G", id="nothing before the point"),
        pytest.param("1,5G", id="comma"),
        pytest.param("5i", id="i without a prefix"),
        pytest.param("5iB", id="iB without a prefix"),
        pytest.param("1e9", id="exponent"),
        pytest.param("0x10", id="hexadecimal"),
        pytest.param("1GiBs", id="more behind the unit"),
        pytest.param("1 G B", id="unit torn apart"),
        pytest.param("1E", id="a unit that does not exist here"),
        pytest.param("inf", id="inf"),
        pytest.param("nan", id="nan"),
        pytest.param("٣G", id="digits of another script"),
        pytest.param("1" + "0" * 400, id="hundreds of digits"),
    ],
)
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size") as caught:
        parse_bytes(text)
    assert caught.value.hint is not None


@pytest.mark.parametrize("n_bytes", [0, 1, 999, KIB, 3 * MIB, 17 * GIB, 3 << 40])
def test_a_printed_size_can_be_typed_again(n_bytes: int) -> None:
    assert parse_bytes(format_bytes(n_bytes)) == n_bytes


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        pytest.param(None, "unknown", id="unknown"),
        pytest.param(0, "0.0 GB/s", id="zero"),
        pytest.param(1.008e12, "1008.0 GB/s", id="a large GPU"),
        pytest.param(39.96e9, "40.0 GB/s", id="two channels"),
    ],
)
def test_prints_a_rate_in_decimal_units(rate: float | None, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        pytest.param("936 GB/s", 936e9, id="a data sheet"),
        pytest.param("3.35 TB/s", 3.35e12, id="a large GPU"),
        pytest.param(" 51.2GB / s ", 51.2e9, id="spaces"),
        pytest.param("1 GiB/s", float(GIB), id="binary"),
        pytest.param("12/s", 12.0, id="bytes"),
    ],
)
def test_reads_a_rate(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["936 GB", "936 GB/min", "GB/s", "/s", "-1 GB/s", "1 GB/s/s", "", "1e9 B/s"]
)
def test_refuses_what_is_not_a_rate(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rate(text)
    assert caught.value.message == f"{text!r} is not a rate"
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(None, "unknown", id="unknown"),
        pytest.param(0, "0 ms", id="zero"),
        pytest.param(0.84, "840 ms", id="milliseconds"),
        pytest.param(0.9996, "1.0 s", id="never 1000 ms"),
        pytest.param(1, "1.0 s", id="one second"),
        pytest.param(2.44, "2.4 s", id="seconds"),
        pytest.param(59.96, "1 min 0 s", id="never 60.0 s"),
        pytest.param(200, "3 min 20 s", id="minutes"),
        pytest.param(119.6, "2 min 0 s", id="never 1 min 60 s"),
        pytest.param(7200, "120 min 0 s", id="hours are minutes"),
    ],
)
def test_prints_a_duration(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text
