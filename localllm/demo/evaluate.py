"""Measure the demo model on the held-out questions: `python -m localllm.demo.evaluate`.

Asks the real llama-server, greedily, and compares each answer with the reference answers of the
intent that was meant. Knows nothing of training. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localllm.demo import corpus, model_path
from localllm.engine.locate import SERVER, require_tools

__all__ = ["Item", "Result", "ask", "heldout", "matches", "measure", "serving"]

_HELDOUT = Path(__file__).with_name("heldout.json")


@dataclass(frozen=True)
class Item:
    """One question, the messages before it, and the answers that count as right."""

    kind: str
    language: str
    intent: str
    question: str
    system: str | None
    accepted: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What the model answered to a question, and whether that was right."""

    kind: str
    language: str
    intent: str
    question: str
    answer: str
    right: bool


def heldout(path: Path = _HELDOUT) -> list[list[Item]]:
    """Return the held-out conversations; most have a single turn."""
    document = json.loads(path.read_text(encoding="utf-8"))
    known = corpus.references()
    talks = [
        [Item("intent", language, name, question, None, known[name][language])]
        for name, languages in document["intents"].items()
        for language, questions in languages.items()
        for question in questions
    ]
    talks += [
        [Item("unknown", language, "unknown", question, None, known["unknown"][language])]
        for language, questions in document["unknown"].items()
        for question in questions
    ]
    for talk in document["conversations"]:
        language, system = talk["language"], talk.get("system")
        talks.append([
            Item("conversation", language, wanted, question, system, _accepted(wanted, language))
            for question, wanted in talk["turns"]
        ])  # fmt: skip
    return talks


def _accepted(wanted: str, language: str) -> tuple[str, ...]:
    """Return the right answers for an expectation of a conversation in heldout.json.

    `=text` is that text, `more:NAME` what follows the intent, `NAME@zh` its answer in another
    language, `A|B` either.
    """
    if wanted.startswith("="):
        return (wanted[1:],)
    if wanted.startswith("more:"):
        intent = next(i for i in corpus.INTENTS if i.name == wanted[5:])
        return (intent.more(language),)
    answers: list[str] = []
    for choice in wanted.split("|"):
        name, _, other = choice.partition("@")
        answers += corpus.references()[name][other or language]
    return tuple(answers)


def _units(text: str) -> list[str]:
    """Cut a text into words, and Chinese into characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_]+", text.lower())


def matches(answer: str, accepted: Sequence[str]) -> bool:
    """Tell whether `answer` is one of `accepted`, give or take a fifth of the words."""
    given = Counter(_units(answer))
    for text in accepted:
        wanted = Counter(_units(text))
        shared = (given & wanted).total()
        if shared and 2 * shared / (given.total() + wanted.total()) >= 0.8:
            return True
    return False


@contextmanager
def serving(model: Path, server: Path, *arguments: str) -> Iterator[str]:
    """Run llama-server on `model` while the block runs, and yield its address."""
    command = [str(server), "--model", str(model), "--host", "127.0.0.1", "--port", "0"]
    command += ["--threads", "1", "--jinja", "--cache-ram", "0", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # libgomp's threads would spin without end, which is very slow on a busy machine.
        env={"GOMP_SPINCOUNT": "100000", **os.environ},
    )
    try:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                address = found[0]
                break
        if not address:
            raise RuntimeError(f"{server} ended with status {process.wait()} before it listened")
        # Nobody reads on: a full pipe would stop the server.
        drain = subprocess.Popen(
            ["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait(address)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if "drain" in locals():
            drain.wait()


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"{address} did not become ready")


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    """Send `body` as JSON and return the JSON that comes back."""
    request = urllib.request.Request(  # noqa: S310
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
        return json.load(reply)


def ask(address: str, messages: list[dict[str, str]], **settings: Any) -> str:
    """Return the greedy answer to `messages`."""
    body = {"messages": messages, "temperature": 0, "max_tokens": 200, **settings}
    return str(
        post(address, "/v1/chat/completions", body)["choices"][0]["message"]["content"] or ""
    )


def measure(address: str, talks: Sequence[Sequence[Item]]) -> list[Result]:
    """Ask every question of `talks`, each conversation in its turn, and judge the answers."""
    results = []
    for talk in talks:
        messages: list[dict[str, str]] = []
        if talk[0].system:
            messages.append({"role": "system", "content": talk[0].system})
        for item in talk:
            messages.append({"role": "user", "content": item.question})
            answer = ask(address, messages)
            messages.append({"role": "assistant", "content": answer})
            right = matches(answer, item.accepted)
            results.append(
                Result(item.kind, item.language, item.intent, item.question, answer, right)
            )
    return results


def scores(results: Sequence[Result]) -> dict[str, dict[str, float | int]]:
    """Return the share of right answers, by language, by kind and over all."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        for key in ("overall", result.language, result.kind, f"{result.kind} {result.language}"):
            groups.setdefault(key, []).append(result.right)
    return {
        key: {"right": sum(flags), "asked": len(flags), "score": round(sum(flags) / len(flags), 4)}
        for key, flags in sorted(groups.items())
    }


def main() -> None:
    """Parse the command line, measure, print the scores."""
    parser = argparse.ArgumentParser(description="Measure the demo model.")
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--heldout", type=Path, default=_HELDOUT, help="the questions")
    parser.add_argument("--json", type=Path, help="write scores and answers here")
    args = parser.parse_args()
    with serving(args.model, require_tools(SERVER).path(SERVER)) as address:
        results = measure(address, heldout(args.heldout))
    table = scores(results)
    for key, row in table.items():
        sys.stdout.write(f"{key:20} {row['right']:4} of {row['asked']:4}  {row['score']:.1%}\n")
    for result in results:
        if not result.right:
            sys.stdout.write(f"{result.intent:14} {result.question}\n{'':14} -> {result.answer}\n")
    if args.json:
        document = {"scores": table, "results": [asdict(result) for result in results]}
        args.json.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
