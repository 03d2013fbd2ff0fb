"""Headers of a repository: ten quantizations read for little more than one header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest

from localllm.errors import NetworkError
from localllm.gguf import parse_header
from localllm.hub.headers import read_headers
from localllm.hub.huggingface import HuggingFace
from localllm.hub.opened import Opened
from localllm.hub.patience import Limits
from localllm.hub.source import Listing
from localllm.hub.web import Web
from localllm.outline import outline
from localllm.units import MIB
from localllm.variants import Variant, group_files
from tests.ggufs import Llama, byte_vocabulary, header_bytes
from tests.loopback_hub import HeaderOnly, LoopbackHub, ServerError, Truncate
from tests.shapes import SHAPES

QUICK = Limits(idle_seconds=5.0, attempts=2, backoff_seconds=0.01)
SHAPE = SHAPES["4b"]
N_VOCAB = 151_936
REPO = "org/Some-4B-GGUF"


@cache
def header_of(quant: str) -> tuple[bytes, int]:
    """A quantization's header, its vocabulary of real length, and the bytes of its tensors."""
    vocabulary = byte_vocabulary(N_VOCAB)
    vocabulary["tokenizer.ggml.merges"] = [f"w{at} x{at}" for at in range(N_VOCAB - 300)]
    keys = {**SHAPE.metadata(quant), "general.name": f"Some 4B in {quant}", **vocabulary}
    tensors = SHAPE.tensors(quant)
    n_data = sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
    return header_bytes(keys, tensors), n_data


def file_of(quant: str) -> HeaderOnly:
    head, n_data = header_of(quant)
    return HeaderOnly(len(head) + n_data, head)


@dataclass(frozen=True)
class Read:
    """What was read of a repository, and what that cost."""

    hub: LoopbackHub
    listing: Listing
    variants: tuple[Variant, ...]

    def again(self) -> list[Opened]:
        source = HuggingFace(Web(QUICK), REPO)
        return read_headers(
            source,
            self.listing,
            self.variants,
            ref=REPO,
            path_of=lambda variant: f"/models/{variant.files[0].path}",
        )


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def listed(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    listing = HuggingFace(Web(QUICK), REPO).listing()
    hub.reset()
    return Read(hub, listing, group_files(listing.files))


def test_ten_quantizations_cost_one_header_and_less_than_a_mib_for_each_other(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    quants = SHAPE.quants[:10]
    hub.add_repo(REPO, {f"Some-4B-{quant}.gguf": file_of(quant) for quant in quants})
    repository = listed(hub, monkeypatch)
    models = repository.again()
    assert {each.model.quant for each in models} == set(quants)
    n_header = max(len(header_of(quant)[0]) for quant in quants)
    assert n_header > 5 * MIB
    assert hub.sent_bytes("*.gguf") <= n_header + 9 * MIB
    sent = sorted(hub.sent_bytes(f"*-{quant}.gguf") for quant in quants)
    assert max(sent[:-1]) <= MIB
    assert hub.leaks == []


def test_what_is_read_through_a_sibling_is_what_the_whole_header_tells(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {quant: file_of(quant) for quant in ("Q8_0", "Q4_K_M")}
    hub.add_repo(REPO, {f"Some-4B-{quant}.gguf": file for quant, file in files.items()})
    for each in listed(hub, monkeypatch).again():
        file = files[each.model.quant or ""]
        whole = _Whole(file)
        expected = outline(whole, parse_header(whole))
        (found,) = each.outlines
        assert (found.data, found.file_bytes) == (expected.data, expected.file_bytes)
        assert each.model.size_bytes == file.size_bytes
        assert each.model.path == f"/models/Some-4B-{each.model.quant}.gguf"


@dataclass(frozen=True)
class _Whole:
    """A generated file as a ByteSource."""

    file: HeaderOnly
    name: str = "whole"

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        return self.file.read(offset, min(offset + n_bytes, self.size_bytes))


def test_a_damaged_quantization_is_told_and_leaves_the_others(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, n_data = header_of("Q4_K_M")
    hub.add_repo(
        REPO,
        {
            "Some-4B-Q8_0.gguf": file_of("Q8_0"),
            "Some-4B-Q4_K_M.gguf": HeaderOnly(len(head) + n_data - 1000, head),
            "Some-4B-Q6_K.gguf": HeaderOnly(5000, b"<html>"),
        },
    )
    models = {each.model.quant: each for each in listed(hub, monkeypatch).again()}
    assert models["Q8_0"].unusable is None
    assert "cut short" in (models["Q4_K_M"].unusable or "")
    assert "web page" in (models["Q6_K"].unusable or "")


def test_the_first_that_can_be_read_is_what_the_others_are_compared_with(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"Some-4B-{quant}.gguf": file_of(quant) for quant in ("Q6_K", "Q5_K_M", "Q4_K_M")}
    hub.add_repo(REPO, {**files, "Some-4B-Q8_0.gguf": HeaderOnly(5000, b"<html>")})
    models = listed(hub, monkeypatch).again()
    assert [each.unusable is None for each in models] == [False, True, True, True]
    assert hub.sent_bytes("*.gguf") <= len(header_of("Q6_K")[0]) + 4 * MIB


def test_shards_are_all_read(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Llama(n_layers=1)
    keys = {**first.metadata(), "split.no": 0, "split.count": 2, "split.tensors.count": 20}
    second = replace(first, n_layers=2).tensors()[len(first.tensors()) - 1 :]
    parts = [
        header_bytes(keys, first.tensors()),
        header_bytes({"split.no": 1, "split.count": 2, "split.tensors.count": 20}, second),
    ]
    sizes = [
        len(head) + sum(-(-t.n_bytes // 32) * 32 for t in tensors)
        for head, tensors in zip(parts, (first.tensors(), second), strict=True)
    ]
    hub.add_repo(
        REPO,
        {
            f"m-F32-0000{no}-of-00002.gguf": HeaderOnly(size, head)
            for no, (size, head) in enumerate(zip(sizes, parts, strict=True), 1)
        },
    )
    (model,) = listed(hub, monkeypatch).again()
    assert len(model.outlines) == 2
    assert model.model.size_bytes == sum(sizes)


def test_a_source_that_falters_is_asked_again_and_one_that_fails_is_told(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo(REPO, {"Some-4B-Q8_0.gguf": file_of("Q8_0")})
    repository = listed(hub, monkeypatch)
    hub.misbehave(Truncate(1000), file="*.gguf", times=1)
    assert repository.again()[0].unusable is None
    hub.misbehave(ServerError(503), file="*.gguf")
    with pytest.raises(NetworkError, match="503"):
        repository.again()
