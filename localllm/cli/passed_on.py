"""What follows `--` in `localllm serve MODEL -- …`: llama-server's own arguments, sorted.

Each belongs to the plan, to the gateway, to nobody (it is refused) or to llama-server. This knows
llama-server's spelling and our fields; it neither plans nor starts anything.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from localllm.cli import prepare
from localllm.cli.references import expanded
from localllm.errors import UsageError
from localllm.gateway.settings import PREFIX, Settings
from localllm.naming import parse_ref
from localllm.planner import Wishes
from localllm.planner.wishes import ALL_LAYERS

#: Takes the option as it was typed and its value. None leaves the field to the plan.
_Read = Callable[[str, str], Any]
#: llama.cpp keeps its numbers in 32 bits.
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class PassedOn:
    """What the arguments after `--` come to.

    Attributes:
        wishes: fields of planner.Wishes.
        settings: fields of gateway.settings.Settings.
        keys: that clients may show, beside those of a key file; never for a command line.
        model: the file that -m names, absolute; None without it.
        alias: instead of the model's name: llama-server would answer to both, by the alphabet.
        looks_for_mmproj: a projector beside the model is used; --no-mmproj says no.
        extra_argv: for llama-server, after our own arguments: it takes the last one of a kind
            (but of tensor overrides the first that matches, which may be the plan's).
        warnings: sentences.
        typed: by field, what was typed: "-c 8192".
    """

    wishes: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = field(default=(), repr=False)
    model: str | None = None
    alias: str | None = None
    looks_for_mmproj: bool = True
    extra_argv: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    typed: Mapping[str, str] = field(default_factory=dict)

    def with_wishes(self, own: Wishes) -> Wishes:
        """Both together.

        Raises:
            UsageError: a flag of ours says otherwise.
        """
        nothing = Wishes()
        for name, value in self.wishes.items():
            if getattr(own, name) != getattr(nothing, name):
                self._agree(name, getattr(own, name), value)
        return replace(own, **self.wishes)

    def with_settings(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Both together.

        Args:
            own: the flags of ours that were given, by the field of Settings.

        Raises:
            UsageError: one of them says otherwise.
        """
        for name, value in self.settings.items():
            if name in own:
                self._agree(name, own[name], value)
        return {**own, **self.settings}

    def with_model(self, own: str | None) -> str:
        """The reference that was given, or the file of -m.

        Raises:
            UsageError: there is neither, or both and not the same.
        """
        if self.model is None and own is None:
            raise UsageError("serve needs a model", "localllm serve MODEL")
        if self.model is not None and own is not None:
            # -m's file is absolute here; in the error stands what was typed.
            same = parse_ref(own).kind == "file" and _model("", own) == self.model
            self._agree("model", own, own if same else self.model)
        return self.model or own or ""

    def _agree(self, name: str, own: object, passed: object) -> None:
        if own != passed:
            flag = _FLAGS.get(name, f"--{name.removeprefix('n_').replace('_', '-')}")
            told = ",".join(own) if isinstance(own, tuple) else own
            raise UsageError(
                f"{flag} {told} and {self.typed[name]} after -- contradict one another",
                "leave one of them out",
            )


def read(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> PassedOn:
    """Sorts what follows the dashes.

    As llama-server does it: `--ctx_size` is `--ctx-size`, a value is the next word whatever it
    looks like, and `--ctx-size=8192` is no spelling of its. Every word that is not known here is
    llama-server's, so that how many values its other options take need not be known.

    Args:
        argv: without the dashes.
        environment: for LLAMA_API_KEY, which llama-server would honour, too, and for LLAMA_ARG_*,
            which its children do not get (engine/argv.py).

    Raises:
        UsageError: an option that cannot be served, or a value that cannot be meant.
        NotFoundError: there is no such projector, or nobody whose home a path begins with.
    """
    values: dict[str, Any] = {}
    typed: dict[str, str] = {}
    keys = list(_keys(environment.get("LLAMA_API_KEY", "")))
    extra: list[str] = []
    unplanned: list[str] = []
    warnings: list[str] = []
    words = iter(argv)
    for word in words:
        name = _spelled(word)
        _check(word, name, words)
        if name == "--api-key":
            keys += _keys(_value(word, words))
            warnings.append(_KEY_SEEN)
        elif name in _LOOKS_FOR_MMPROJ:
            values["looks_for_mmproj"] = _LOOKS_FOR_MMPROJ[name]
        elif name in _TAKEN:
            names, reader = _TAKEN[name]
            text = _value(word, words)
            value = reader(word, text)
            for each in names:
                values[each] = value
                typed[each] = f"{word} {text}"
        else:
            extra.append(word)
            if name in _UNPLANNED:
                unplanned.append(word)
    if "n_ctx" in values and values["n_ctx"] is None:
        warnings.append(_CTX_LEFT.format(typed=typed["n_ctx"]))
    if unplanned:
        warnings.append(_NOT_PLANNED.format(words=", ".join(dict.fromkeys(unplanned))))
    ignored = sorted(name for name in environment if name.startswith("LLAMA_ARG_"))
    if ignored:
        warnings.append(_NOT_HEARD.format(names=", ".join(ignored)))
    return PassedOn(
        wishes=_of(Wishes, values),
        settings=_of(Settings, values),
        keys=tuple(keys),
        extra_argv=tuple(extra),
        warnings=tuple(dict.fromkeys(warnings)),
        typed=typed,
        **_of(PassedOn, values),
    )


def _of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of it and were not left to the plan."""
    names = {of.name for of in fields(kind)}
    return {name: v for name, v in values.items() if name in names and v is not None}


def _spelled(word: str) -> str:
    return word.replace("_", "-") if word.startswith("--") else word


def _value(word: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise UsageError(f"{word} after -- has no value", "llama-server --help tells what it takes")
    return value


def _check(word: str, name: str, words: Iterator[str]) -> None:
    """Refuses what cannot be served. The value after a `=` may be a key: it is not repeated."""
    option, equals, _ = name.partition("=")
    if equals and (option == "--api-key" or option in _TAKEN or option in _REFUSED):
        raise UsageError(
            f"llama-server does not take {option}=VALUE", f"with a blank: {option} VALUE"
        )
    if name in _REFUSED:
        why, hint = _REFUSED[name]
        raise UsageError(
            f"{word} after -- cannot be served: {why}",
            hint.format(word=word, value=next(words, "MODEL")),
        )


# -- values


def _keys(text: str) -> Iterator[str]:
    # llama-server reads the list as a line of CSV: a key with a comma stands in quotes.
    return (key for row in csv.reader(text.splitlines()) for key in row if key)


def _whole(least: int, *, auto: Sequence[int] = (), most: int = _INT32_MAX) -> _Read:
    """A number; those of `auto` leave it to the plan."""
    span = f"{least} or more" if most == _INT32_MAX else f"{least} to {most}"

    def read_whole(word: str, text: str) -> int | None:
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,10}", text) else None
        if number in auto:
            return None
        if number is None or not least <= number <= most:
            raise UsageError(f"{word} {text} after --: it takes a number", span)
        return number

    return read_whole


def _one_of(meanings: Mapping[str, Any], otherwise: _Read | None = None) -> _Read:
    def read_one(word: str, text: str) -> Any:
        if text in meanings:
            return meanings[text]
        if otherwise is None:
            raise UsageError(
                f"{word} {text} after --: it takes no such value", f"one of {', '.join(meanings)}"
            )
        return otherwise(word, text)

    return read_one


def _host(word: str, text: str) -> str:
    if not text or "," in text:
        raise UsageError(
            f"{word} {text} after --: the gateway listens at one address",
            "0.0.0.0 is every IPv4 address of this machine, :: every IPv6 one",
        )
    return text


def _prefix(word: str, text: str) -> str:
    if text and not PREFIX.fullmatch(text):
        raise UsageError(f"{word} {text} after --: that is no path", f"like this: {word} /llm")
    return text


def _list(_: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _text(_: str, text: str) -> str:
    return text


def _path(_: str, text: str) -> Path:
    return expanded(text)


def _model(_: str, text: str) -> str:
    # Absolute, so that it is never taken for a name of the catalogue.
    return str(expanded(text).absolute())


def _kv(_: str, text: str) -> str | None:
    return prepare.wishes(kv=text).type_k


def _mmproj(_: str, text: str) -> str | None:
    return prepare.wishes(mmproj=expanded(text)).mmproj


# -- the options, as `llama-server --help` spells them

#: What localllm takes for itself, all with one value: names, the fields that they set, the reader.
_ROWS: tuple[tuple[str, str, _Read], ...] = (
    # The plan. What llama-server would find out by itself is for the plan to find out.
    ("-m --model", "model", _model),
    ("-a --alias", "alias", _text),
    ("-c --ctx-size", "n_ctx", _whole(1, auto=(0,))),
    (
        "-ngl --gpu-layers --n-gpu-layers",
        "n_gpu_layers",
        # -1 was "all" once, and is "auto" in llama.cpp's arg.cpp now; -2 is "all".
        _one_of(
            {"auto": None, "-1": None, "all": ALL_LAYERS, "-2": ALL_LAYERS}, otherwise=_whole(0)
        ),
    ),
    ("-np --parallel", "n_parallel", _whole(1, auto=(-1,))),
    ("-t --threads", "n_threads", _whole(1, auto=(-1, 0))),
    ("-tb --threads-batch", "n_threads_batch", _whole(1, auto=(-1, 0))),
    ("-b --batch-size", "n_batch", _whole(1)),
    ("-ub --ubatch-size", "n_ubatch", _whole(1)),
    ("-ctk --cache-type-k", "type_k", _kv),
    ("-ctv --cache-type-v", "type_v", _kv),
    (
        "-fa --flash-attn",
        "flash_attn",
        _one_of(
            {
                **dict.fromkeys(("on", "enabled", "true", "1"), "on"),
                **dict.fromkeys(("off", "disabled", "false", "0"), "off"),
                **dict.fromkeys(("auto", "-1"), "auto"),
            }
        ),
    ),
    ("--rpc", "rpc", _list),
    ("-mm --mmproj", "mmproj", _mmproj),
    # The gateway.
    ("--host", "host", _host),
    ("--port", "port", _whole(0, most=65535)),
    ("--api-prefix", "api_prefix", _prefix),
    ("--api-key-file", "api_key_file", _path),
    ("--ssl-key-file", "tls_key", _path),
    ("--ssl-cert-file", "tls_cert", _path),
    ("--cors-origins", "cors_origins", _list),
    # For one read and one write of a client's socket; not for a whole answer.
    ("-to --timeout", "body_seconds slow_client_seconds", _whole(1)),
)
_TAKEN: dict[str, tuple[tuple[str, ...], _Read]] = {
    name: (tuple(into.split()), reader) for names, into, reader in _ROWS for name in names.split()
}

_LOOKS_FOR_MMPROJ = {"--mmproj-auto": True, "--no-mmproj": False, "--no-mmproj-auto": False}

#: Names, why not, and what instead.
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        "--models-dir --models-preset --models-max --models-autoload --no-models-autoload",
        "it makes llama-server a router of several models, and a gateway serves one",
        "one localllm serve MODEL for each, each with its --port",
    ),
    (
        "-hf -hfr --hf-repo -mu --model-url",
        "localllm fetches models itself, and proves them",
        "as MODEL: localllm serve {value}",
    ),
    (
        "-hff --hf-file -dr --docker-repo --embd-gemma-default --fim-qwen-1.5b-default"
        " --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec"
        " --fim-qwen-30b-default --gpt-oss-20b-default --gpt-oss-120b-default"
        " --vision-gemma-4b-default --vision-gemma-12b-default",
        "localllm fetches models itself, and proves them",
        "name the model as MODEL: localllm serve org/repo:Q4_K_M",
    ),
    (
        "-hfd -hfrd --hf-repo-draft --spec-draft-hf",
        "llama-server goes to no network here",
        "localllm pull fetches it; then --model-draft FILE",
    ),
    (
        "-mmu --mmproj-url",
        "llama-server goes to no network here",
        "localllm pull fetches it; then --mmproj FILE",
    ),
    (
        "-hft --hf-token",
        "every user of this machine can read a command line",
        "HF_TOKEN in the environment",
    ),
    (
        "--sleep-idle-seconds",
        # Unconfirmed, hence the words.
        "llama-server's sleep mode is reported to be unsafe (CVE-2026-43631)",
        "localllm stop gives the memory back",
    ),
    (
        "-h --help --usage --version -cl --cache-list --completion-bash --list-devices",
        "llama-server would print and end",
        "llama-server {word}",
    ),
    (
        "--cors-methods --cors-headers --cors-credentials --no-cors-credentials",
        "the gateway answers browsers itself and decides that by the origin",
        "--cors-origins names the pages that may come",
    ),
    (
        "--reuse-port",
        "the gateway keeps its port for itself",
        "--replicas N puts several llama-servers behind one port",
    ),
)
_REFUSED = {name: (why, hint) for names, why, hint in _REFUSALS for name in names.split()}

#: What changes the memory of a run and has no wish: the dry run is made without it.
_UNPLANNED = frozenset(
    name
    for names in (
        "-cram --cache-ram -ctxcp --ctx-checkpoints --swa-checkpoints --swa-full",
        "-kvu --kv-unified -no-kvu --no-kv-unified --kv-unified-per-slot",
        "-kvo --kv-offload -nkvo --no-kv-offload --op-offload --no-op-offload",
        "-lm --load-mode -lzm --lazy-mode --repack -nr --no-repack --no-host",
        "-dev --device -sm --split-mode -ts --tensor-split -mg --main-gpu -fit --fit",
        "-ot --override-tensor -cmoe --cpu-moe -ncmoe --n-cpu-moe -ncffn --n-cpu-ffn",
        "--override-kv --lora --lora-scaled --control-vector --control-vector-scaled",
        "--mmproj-offload --no-mmproj-offload -mmdev --mmproj-device",
        "--image-max-tokens --mtmd-batch-max-tokens",
        "--spec-type --spec-default --spec-draft-model -md --model-draft",
        "--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft",
        "--spec-draft-type-k -ctkd --cache-type-k-draft",
        "--spec-draft-type-v -ctvd --cache-type-v-draft",
        "--spec-draft-device -devd --device-draft",
        "--spec-draft-override-tensor -otd --override-tensor-draft",
        "--spec-draft-cpu-moe -cmoed --cpu-moe-draft",
        "--spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft",
    )
    for name in names.split()
)

#: Our flags that are not called as their field is.
_FLAGS = {
    "model": "MODEL",
    "n_gpu_layers": "--ngl",
    "type_k": "--kv",
    "type_v": "--kv",
    "cors_origins": "--cors-origin",
}

_KEY_SEEN = (
    "every user of this machine can read a key in a command line;"
    " LLAMA_API_KEY and --api-key-file keep it from them"
)
_CTX_LEFT = "{typed} leaves the context to the plan, which may take less than the model's whole"
_NOT_PLANNED = "the plan was made without {words}: the memory it tells leaves that out"
_NOT_HEARD = "not heard, as it would change the plan without a word: {names}; say it after --"
