"""Whether a damaged header can hurt: 200,000 of them through the parser, then the dry run.

    .venv/bin/python -m benchmarks.fuzz [--n 200000] [--seed 1] [--dry-runs 20000]

First every case is parsed and outlined, in a process that may grow by 256 MiB: each must be
accepted or refused with an error of ours, within a second, and the outline of what is accepted
must be a sound header itself. Then what was accepted is dry-run as a plan does it (cases of the
same outline once; evenly chosen where there are more than asked for): whatever becomes of
llama.cpp, the process that asked must get an answer or an error of ours. The children that it
asks may take 4 GiB of address space here, so that a greedy one does not take the machine's.

Ends with status 1 where anything of that did not hold, and prints the numbers of those cases:
`Mutator(seed).case(number)` makes each again. For Linux.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from benchmarks.common import store
from benchmarks.fuzz_mutations import Mutator
from benchmarks.fuzz_watch import limit_memory, reset_peak, vm_bytes, watch
from localllm.engine import dryrun
from localllm.engine.dryrun import DryRun
from localllm.engine.failure import explain_load_failure, signal_name
from localllm.errors import LocalllmError
from localllm.gguf import Header, MemorySource, parse_header
from localllm.outline import outline
from localllm.plan import Model, Plan
from localllm.units import GIB, MIB
from localllm.weights import read_weights

MEMORY_BYTES = 256 * MIB
CASE_SECONDS = 1.0
#: Of a child, in the dry runs; a sound model takes some 250 MiB of address space.
CHILD_BYTES = 4 * GIB
#: A process that says nothing for this long hangs: for parsing, and beyond DryRun's own patience.
PARSING_PATIENCE_SECONDS, ASKING_PATIENCE_SECONDS = 20.0, 180.0
_BATCH = 500
#: The limit holds for every case; how much memory it takes is measured for one in so many.
_TRACED = 20
_MODELS_A_CHILD = 100


@dataclass
class Finding:
    """What must not be: a case and what happened to it."""

    number: int
    what: str


@dataclass
class Parsed:
    """What became of the parser's cases."""

    accepted: dict[int, bytes] = field(default_factory=dict)
    by_mutation: collections.Counter[tuple[str, bool]] = field(default_factory=collections.Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest_case: int = -1
    peak_bytes: int = 0

    def add(self, other: Parsed) -> None:
        """Takes in a batch."""
        self.accepted.update(other.accepted)
        self.by_mutation.update(other.by_mutation)
        self.findings += other.findings
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest_case = other.slowest_seconds, other.slowest_case


@dataclass
class Asked:
    """What became of one dry run.

    Attributes:
        number: the case.
        kind: "answered", or the error's class, or "foreign".
        why: the error's sentence.
        status: the child's exit status where it ended, negative for a signal.
        seconds, child_bytes: of this question; 0 bytes where the child has ended.
    """

    number: int
    kind: str
    why: str
    status: int | None
    seconds: float
    child_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry-runs", type=int, default=20_000)
    arguments = parser.parse_args()
    mutator = Mutator(arguments.seed)
    started = time.perf_counter()
    parsed = parse_all(mutator, arguments.n)
    parsing_seconds = time.perf_counter() - started
    table_of_parsing(parsed)
    started = time.perf_counter()
    chosen = distinct(parsed.accepted, arguments.dry_runs)
    asked, lost = ask_all(mutator, chosen)
    asking_seconds = time.perf_counter() - started
    findings = parsed.findings + lost
    findings += [Finding(one.number, one.why) for one in asked if one.kind == "foreign"]
    result = {
        "n": arguments.n,
        "seed": arguments.seed,
        "n_bases": mutator.n_bases,
        "parsing": {
            "seconds": round(parsing_seconds, 1),
            "n_accepted": len(parsed.accepted),
            "n_refused": arguments.n - len(parsed.accepted) - len(parsed.findings),
            "slowest_seconds": round(parsed.slowest_seconds, 4),
            "slowest_case": parsed.slowest_case,
            "peak_bytes": parsed.peak_bytes,
        },
        "dry_runs": {
            "seconds": round(asking_seconds, 1),
            "n_distinct": len(set(parsed.accepted.values())),
            **summary(asked),
        },
        "findings": [vars(finding) for finding in findings],
    }
    table_of_asking(result["dry_runs"])
    for finding in findings:
        print(f"FOUND case {finding.number}: {finding.what}")
    store("fuzz", result)
    return 1 if findings else 0


# -- parsing -------------------------------------------------------------------------------------


def parse_all(mutator: Mutator, n: int) -> Parsed:
    """Every case through parser and outline, batch by batch in a process that is watched."""
    total = Parsed()
    skipped: set[int] = set()

    def work(pipe: Connection, at: Any, start: int) -> None:
        limit_memory(MEMORY_BYTES + vm_bytes("VmSize"))
        for first in range(start, n, _BATCH):
            pipe.send(parse_batch(mutator, range(first, min(first + _BATCH, n)), skipped, at))

    def take(batch: Parsed) -> int:
        total.add(batch)
        return _BATCH

    def lose(number: int, how: str) -> None:
        skipped.add(number)
        total.findings.append(Finding(number, f"the parser's process {how}"))

    watch(work, take, lose, n, PARSING_PATIENCE_SECONDS)
    return total


def parse_batch(mutator: Mutator, numbers: range, skipped: set[int], at: Any) -> Parsed:
    """Some cases; `at` tells the watcher which one is under way."""
    batch = Parsed()
    for number in numbers:
        if number in skipped:
            continue
        at.value = number
        case = mutator.case(number)
        accepted, started = None, time.process_time()
        try:
            accepted = digest_of_accepted(case.source)
        except LocalllmError:
            pass
        except BaseException as exc:  # the very thing that is looked for
            batch.findings.append(Finding(number, f"{type(exc).__name__}: {exc}"[:300]))
        seconds = time.process_time() - started
        if number % _TRACED == 0:
            batch.peak_bytes = max(batch.peak_bytes, traced_bytes(case.source))
        if seconds > batch.slowest_seconds:
            batch.slowest_seconds, batch.slowest_case = seconds, number
        if seconds > CASE_SECONDS:
            batch.findings.append(Finding(number, f"took {seconds:.1f} s"))
        batch.by_mutation[case.mutation, accepted is not None] += 1
        if accepted is not None:
            batch.accepted[number] = accepted
    return batch


def digest_of_accepted(source: MemorySource) -> bytes:
    """What is the same for two headers of which llama.cpp sees the same outline.

    Raises:
        LocalllmError: the header is refused.
        AssertionError: it is accepted, and its outline is not.
    """
    header = parse_header(source)
    outlined = outline(source, header)
    model_of(header)
    read_weights([header])
    try:
        again = parse_header(outlined)
    except LocalllmError as exc:
        raise AssertionError(f"its outline is refused: {exc}") from exc
    assert [vars(tensor) for tensor in again.tensors] == [vars(one) for one in header.tensors]
    size = outlined.size_bytes.to_bytes(16, "little")
    return hashlib.blake2b(outlined.data + size, digest_size=12).digest()


def traced_bytes(source: MemorySource) -> int:
    """The most memory that it takes, beside the header itself."""
    tracemalloc.start()
    with contextlib.suppress(Exception):  # of which parse_batch has told
        digest_of_accepted(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def model_of(header: Header) -> Model:
    """As the hub's rooms describe a model."""
    return Model(
        ref="mutant",
        path="mutant.gguf",
        architecture=header.architecture,
        n_layers=header.n_layers,
        n_ctx_train=header.n_ctx_train,
        quant=header.quant,
        size_bytes=header.file_bytes,
        has_chat_template=header.has_chat_template,
        is_generative=header.is_generative,
    )


# -- dry runs ------------------------------------------------------------------------------------


def distinct(accepted: dict[int, bytes], at_most: int) -> list[int]:
    """The first case of each outline, evenly thinned out to so many."""
    first: dict[bytes, int] = {}
    for number, digest in sorted(accepted.items()):
        first.setdefault(digest, number)
    numbers = sorted(first.values())
    step = max(1.0, len(numbers) / at_most)
    return [numbers[int(index * step)] for index in range(min(at_most, len(numbers)))]


def ask_all(mutator: Mutator, numbers: Sequence[int]) -> tuple[list[Asked], list[Finding]]:
    """Dry runs of these cases, in a process that is watched: it stands for localllm."""
    answers: list[Asked] = []
    lost: list[Finding] = []

    def work(pipe: Connection, at: Any, start: int) -> None:
        limit_memory(CHILD_BYTES)
        with tempfile.TemporaryDirectory(prefix="ll-fuzz-") as home:
            os.environ["LOCALLLM_HOME"] = home
            for first in range(start, len(numbers), _MODELS_A_CHILD):
                some = numbers[first : first + _MODELS_A_CHILD]
                for index, asked in enumerate(ask_some(mutator, some, Path(home))):
                    at.value = first + index + 1
                    pipe.send(asked)

    def take(asked: Asked) -> int:
        answers.append(asked)
        return 1

    def lose(index: int, how: str) -> None:
        lost.append(Finding(numbers[index], f"the process that asked {how}"))
        answers.append(Asked(numbers[index], "lost", how, None, 0.0, 0))

    watch(work, take, lose, len(numbers), ASKING_PATIENCE_SECONDS)
    return answers, lost


def ask_some(mutator: Mutator, numbers: Sequence[int], folder: Path) -> Any:
    """One oracle's worth of questions, an Asked each."""
    plans, outlines = {}, {}
    for number in numbers:
        source = mutator.case(number).source
        header = parse_header(source)
        # Every fourth is on this disk too, and is asked about where its outline will not do.
        path = folder / f"{number}.gguf"
        if number % 4 == 0 and source.size_bytes < 2**43:
            with path.open("wb") as file:
                file.write(source.data)
                file.truncate(source.size_bytes)
        n_ctx = min(max(header.n_ctx_train or 0, 512), 131_072)
        model = vars(model_of(header)) | {"path": str(path)}
        plans[number] = Plan(Model(**model), n_ctx=n_ctx)
        outlines[str(path)] = [outline(source, header)]
    ended: list[int] = []

    def note(log: str, path: str, status: int) -> LocalllmError:
        if status != 1:  # 1 is llama.cpp's own refusal, from a child that goes on
            ended.append(status)
        return explain_load_failure(log, path, status)

    try:
        with patch.object(dryrun, "explain_load_failure", note), DryRun(outlines) as oracle:
            for number, plan in plans.items():
                ended.clear()
                kind, why, started = "answered", "", time.perf_counter()
                try:
                    oracle.memory(plan)
                except LocalllmError as exc:
                    kind, why = type(exc).__name__, exc.message
                except BaseException as exc:  # the very thing that is looked for
                    kind, why = "foreign", f"{type(exc).__name__}: {exc}"[:300]
                seconds = time.perf_counter() - started
                why = why.replace(plan.model.path, "it")
                status = ended[-1] if ended else None
                yield Asked(number, kind, why, status, seconds, children_bytes())
    finally:
        for path in folder.glob("*.gguf"):
            path.unlink()


def children_bytes() -> int:
    """The most that a living child held since it was last asked about."""
    most = 0
    for child in psutil.Process().children():
        try:
            most = max(most, vm_bytes("VmHWM", child.pid))
            reset_peak(child.pid)
        except OSError:  # it has ended
            continue
    return most


def summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """The dry runs in figures."""
    reasons = collections.Counter(_gist(one.why) for one in asked if one.why)
    slowest = max(asked, key=lambda one: one.seconds, default=None)
    greediest = max(asked, key=lambda one: one.child_bytes, default=None)
    ended = collections.Counter(
        signal_name(-one.status) if one.status < 0 else f"status {one.status}"
        for one in asked
        if one.status is not None
    )
    return {
        "n": len(asked),
        "by_kind": dict(collections.Counter(one.kind for one in asked)),
        "children_that_ended": dict(ended),
        "n_without_an_answer_in_time": sum("gave no answer" in one.why for one in asked),
        "slowest_seconds": round(slowest.seconds, 3) if slowest else None,
        "slowest_case": slowest.number if slowest else None,
        "largest_child_bytes": greediest.child_bytes if greediest else None,
        "largest_child_case": greediest.number if greediest else None,
        "n_children_over_1_gib": sum(one.child_bytes > GIB for one in asked),
        "reasons": dict(reasons.most_common(25)),
    }


def _gist(why: str) -> str:
    """The sentence without the names and numbers in it."""
    without = re.sub(r"(?!llama\.cpp)(?<!\S)\S*(?:\d|['\"]|\w\.\w)\S*", "…", why)
    return re.sub(r"\s*…(?:\s+…)*", " …", without)[:100]


# -- tables --------------------------------------------------------------------------------------


def table_of_parsing(parsed: Parsed) -> None:
    print(f"{'mutation':<18}{'cases':>9}{'accepted':>10}")
    names = sorted({name for name, _ in parsed.by_mutation})
    for name in names:
        accepted = parsed.by_mutation[name, True]
        print(f"{name:<18}{accepted + parsed.by_mutation[name, False]:>9}{accepted:>10}")
    print(
        f"{sum(parsed.by_mutation.values())} parsed, {len(parsed.accepted)} accepted; slowest "
        f"{parsed.slowest_seconds:.3f} s (case {parsed.slowest_case}), "
        f"most memory {parsed.peak_bytes / MIB:.1f} MiB"
    )


def table_of_asking(figures: dict[str, Any]) -> None:
    print(f"{figures['n']} dry runs of {figures['n_distinct']} distinct outlines")
    for name in ("by_kind", "children_that_ended", "reasons"):
        for what, count in figures[name].items():
            print(f"{name:<22}{count:>7}  {what}")
    print(
        f"slowest {figures['slowest_seconds']} s (case {figures['slowest_case']}), largest child "
        f"{(figures['largest_child_bytes'] or 0) / MIB:.0f} MiB "
        f"(case {figures['largest_child_case']})"
    )


if __name__ == "__main__":
    sys.exit(main())
