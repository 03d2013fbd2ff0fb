"""Names: what a person may type for a model, and what the files of a repository say they are.

Pure: it never looks whether the thing exists. Which files make one download together is
localllm/variants.py.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, TypeAlias

from localllm.errors import IntegrityError, UsageError
from localllm.quants import BARE, FORK_ONLY, find_quant, ladder

_HUB = re.compile(
    r"(?:(?P<hub>hf|ms):)?(?P<repo>[\w][\w.-]*/[\w][\w.-]*)"
    r"(?:@(?P<revision>[\w][\w.-]*(?:/[\w][\w.-]*)*))?(?::(?P<quant>[\w][\w.-]*))?",
    re.ASCII,
)
_ALIAS = re.compile(
    r"(?P<alias>[a-z][a-z0-9.-]*(?::[a-z0-9][\w.-]*)?)(?::(?P<quant>[A-Za-z][\w.-]*))?", re.ASCII
)
DEMO = "demo"


@dataclass(frozen=True)
class ModelRef:
    """A reference to a model.

    Attributes:
        kind: "demo", "file", "url", "hf", "ms" or "alias" (a name in the catalogue).
        text: what was typed.
        repo, revision, quant: of a hub reference; None where not given. Of an alias, `repo` is the
            alias itself: "qwen3:8b" of "qwen3:8b:Q4_K_M".
    """

    kind: Literal["demo", "file", "url", "hf", "ms", "alias"]
    text: str
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None


def parse_ref(text: str) -> ModelRef:
    """Reads a model reference.

    Precedence: 1. `demo`; 2. `https://…` and `http://…`; 3. what looks like a path: it ends in
    .gguf or .llamafile, begins with `/`, `./`, `../`, `~` or a drive letter, or has a
    backslash; 4. `[hf:|ms:]org/repo[@revision][:QUANT]`; 5. a catalogue alias such as
    `qwen3:8b` or `qwen3:8b:Q4_K_M`. A file whose name looks like nothing else is reached as
    `./name`.

    Raises:
        UsageError: it is none of these.
    """
    if not text or "\0" in text or "\n" in text:
        raise UsageError("a model needs a name", _HINT)
    if text == DEMO:
        return ModelRef("demo", text)
    if re.match(r"https?://", text, re.IGNORECASE):
        return ModelRef("url", text)
    if (
        text.lower().endswith((".gguf", ".llamafile"))
        or text.startswith(("/", "./", "../", "~", ".\\"))
        or text in (".", "..")
        or "\\" in text
        or re.match(r"[A-Za-z]:[/\\]", text)
    ):
        if text.startswith(("hf:", "ms:")):
            raise UsageError(f"{text!r} names a file, not a repository", _HINT)
        return ModelRef("file", text)
    if match := _HUB.fullmatch(text):
        hub: Literal["hf", "ms"] = "ms" if match["hub"] == "ms" else "hf"
        return ModelRef(hub, text, match["repo"], match["revision"], match["quant"])
    if (match := _ALIAS.fullmatch(text)) and not text.startswith(("hf:", "ms:")):
        return ModelRef("alias", text, match["alias"], quant=match["quant"])
    raise UsageError(f"{text!r} is not a model reference", _HINT)


_HINT = "name a file (./model.gguf), a repository (org/repo:Q4_K_M), or demo"


Kind: TypeAlias = Literal["model", "mmproj", "imatrix", "draft", "lora", "other"]


@dataclass(frozen=True)
class FileName:
    """What the name of a file in a repository says that it is.

    Attributes:
        path: as the repository lists it, with forward slashes.
        folder: the part before the last slash; "" at the root.
        kind: "model" (weights that can be run), "mmproj" (the eyes or ears of one), "draft" (a
            small model or a head that guesses ahead for one), "lora", "imatrix" (statistics for
            quantizing) or "other".
        quant: the quantization in canonical spelling ("Q4_K_M", "UD-IQ2_M", "F16"); a bare
            width ("Q4") where the name has no more; None where it has nothing.
        shard, n_shards: 2 and 5 in `…-00002-of-00005.gguf`; None for a file that is whole.
        stem: the file's name without its suffix and shard numbers: what shards of a set share.
        base: the model's own name, lower case: the stem without quantization and kind. "" where
            the name says nothing else.
        unusable: why llama.cpp cannot load it, in a clause; None where nothing speaks against it.
    """

    path: str
    folder: str
    kind: Kind
    quant: str | None = None
    shard: int | None = None
    n_shards: int | None = None
    stem: str = ""
    base: str = ""
    unusable: str | None = None


_FLOATS = {"F32", "F16", "BF16"}
_SPELLINGS = {"FP32": "F32", "FP16": "F16"}

# The hub's own pattern is (UD-)?(quant)(_[A-Z]+)?, upper-cased, the last match. Ours is anchored
# besides: no letter or digit on either side, so that F16 is not in BF16, Q4_0 not in IQ4_0, Q8
# not in Q8Fans; an underscore may stand there (`gemma_2b_q8_0.gguf`). K-quants take any short
# ending, as uploaders invent some (Q4_K_P). A pair of numbers behind (Q4_0_4_4) is another type,
# and `_R4` the row-interleaved form of a fork.
_NAMES = {
    name
    for rung in ladder()
    if "_K" not in (name := rung.name.removeprefix("UD-")) and rung.name == name
} | {*FORK_ONLY, *_SPELLINGS}
_QUANT = re.compile(
    r"(?<![a-z0-9])(?P<dynamic>ud-)?(?P<name>q[2-6]_k(?:_[a-z]{1,3})?|q8_k_[a-z]{1,3}|"
    + "|".join(sorted(_NAMES, key=lambda name: (-len(name), name)))
    + r")(?P<rows>_r\d{1,2})?(?![a-z0-9])(?!_\d+_\d+)",
    re.IGNORECASE | re.ASCII,
)
# Only as the last thing in a name: elsewhere Q4 is a quarter of a year.
_BARE = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(BARE)})$", re.IGNORECASE | re.ASCII)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$", re.IGNORECASE | re.ASCII)
#: The largest sets on the hub have some 100; a listing is not to make us count to 99999.
_MAX_SHARDS = 1000
_SHARD_LIKE = re.compile(r"-\d{1,9}-of-\d{1,9}$", re.IGNORECASE | re.ASCII)
# mradermacher's `.gguf.part1of2`, TheBloke's `.gguf-split-a`.
_OLD_SPLIT = re.compile(
    r"\.gguf(?:[.-]part[.-]?\w{1,9}|-split-\w{1,3}|\.\d{1,3})$", re.IGNORECASE | re.ASCII
)
_GGUF = re.compile(r"\.(?:gguf|llamafile)$", re.IGNORECASE | re.ASCII)
_IMATRIX_FILE = re.compile(r"\.(?:gguf|dat|imatrix|gguf_file)$", re.IGNORECASE | re.ASCII)


def _words(pattern: str) -> re.Pattern[str]:
    """The pattern with no letter or digit on either side."""
    return re.compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", re.IGNORECASE | re.ASCII)


_MMPROJ = _words("mmproj")
_IMATRIX = _words("imatrix")
_DRAFT = _words("eagle3|dflash|dspark|draft")
# MTP is a draft as a prefix only, as convert_hf_to_gguf.py --mtp writes it: `Qwen3.6-27B-MTP` is
# a whole model that brings its own.
_MTP = re.compile(r"mtp(?![a-z0-9])", re.IGNORECASE | re.ASCII)
_LORA = _words("lora|adapter")
_VOCAB = re.compile(r"ggml-vocab(?![a-z0-9])|.*(?<![a-z0-9])vocab$", re.IGNORECASE | re.ASCII)
_FOLDERS: dict[str, Kind] = {
    "mmproj": "mmproj",
    "lora": "lora",
    "loras": "lora",
    "mtp": "draft",
    "eagle3": "draft",
    "dflash": "draft",
    "dspark": "draft",
    "draft": "draft",
}
_NOT_A_NAME = _words("mmproj|mtp|eagle3|dflash|dspark|draft|imatrix|imat|i1|ggml|model|gguf")


def read_file_name(path: str) -> FileName:
    """What a file in a model repository is, by its name alone.

    The kind, by precedence: 1. a path that check_repo_path refuses is "other"; 2. imatrix files
    of any suffix; 3. what is neither .gguf nor .llamafile is "other"; 4. `mmproj` as a word of
    the name; 5. `imatrix` as the first or last word, but for a last one behind a quantization
    (`…-Q4_K_M-imatrix.gguf` was made with one); 6. `mtp-` as a prefix, `eagle3`, `dflash`,
    `dspark` or `draft` as a word; 7. `lora` or `adapter` as the first or last word, or before
    an F16 or Q8_0 (nothing smaller is made of adapters); 8. a folder called mmproj, mtp, lora
    and so on; 9. a model.

    The quantization is the last in the name, as on the hub; a model whose name has none takes
    that of the nearest folder (`Q4_K_M/model-00001-of-00002.gguf`).
    """
    folder, _, name = path.rpartition("/")
    try:
        check_repo_path(path)
    except IntegrityError as exc:
        return FileName(path, folder, "other", unusable=exc.message)
    if old := _OLD_SPLIT.search(name):
        stem = name[: old.start()]
        return FileName(
            path,
            folder,
            "other",
            quant=_last_quant(stem)[0],
            stem=stem,
            base=_base(stem),
            unusable="it is a piece of a file that was cut up without llama-gguf-split",
        )
    words = _IMATRIX_FILE.sub("", name)
    if not _GGUF.search(name):
        is_imatrix = _IMATRIX_FILE.search(name) and (
            _IMATRIX.search(words) or name.lower().endswith(".imatrix")
        )
        return FileName(path, folder, "imatrix" if is_imatrix else "other", stem=words)
    stem = _GGUF.sub("", name)
    shard = n_shards = None
    unusable = None
    if match := _SHARD.search(stem):
        shard, n_shards = int(match[1]), int(match[2])
        stem = stem[: match.start()]
        if not 1 <= shard <= n_shards <= _MAX_SHARDS:
            unusable = f"there is no shard {shard} of {n_shards}"
    elif _SHARD_LIKE.search(stem):
        unusable = "llama.cpp numbers shards with five digits"
    kind: Kind = "other" if unusable or not stem else _kind(folder, stem)
    quant = _last_quant(stem)[0]
    if quant is None and kind in ("model", "draft"):
        quant = next(filter(None, (_last_quant(f)[0] for f in reversed(folder.split("/")))), None)
    if quant and unusable is None:
        unusable = _not_loadable(quant)
    return FileName(path, folder, kind, quant, shard, n_shards, stem, _base(stem), unusable)


def _not_loadable(quant: str) -> str | None:
    """Why llama.cpp cannot load this quantization, or None."""
    rung = find_quant(quant)
    if rung is None or rung.fork_only:
        return f"{quant} is a type of a fork of llama.cpp"
    return f"{quant} was withdrawn from llama.cpp" if rung.withdrawn else None


def _last_quant(text: str) -> tuple[str | None, int]:
    """The last quantization in a name, and where it begins (the end where there is none)."""
    if match := _BARE.search(text):
        return match[0].upper(), match.start()
    for match in reversed(list(_QUANT.finditer(text))):
        name = match["name"].upper()
        whole = (match["dynamic"] or "") + _SPELLINGS.get(name, name) + (match["rows"] or "")
        return whole.upper(), match.start()
    return None, len(text)


def _kind(folder: str, stem: str) -> Kind:
    """The kind of a GGUF, from step 4 of read_file_name on."""
    quant, start = _last_quant(stem)
    before = stem[:start].rstrip("-._ ")
    if _MMPROJ.search(stem):
        return "mmproj"
    for match in _IMATRIX.finditer(stem):
        made_with_one = quant not in {None, *_FLOATS} and start < match.start()
        if match.start() == 0 or (match.end() == len(stem) and not made_with_one):
            return "imatrix"
    if _MTP.match(stem) or _DRAFT.search(stem):
        return "draft"
    if _VOCAB.match(stem):
        return "other"
    for match in _LORA.finditer(stem):
        if (
            stem[: match.start()].lower() in ("", "ggml-")
            or match.end() == len(stem)
            or (match.end() == len(before) and quant in {*_FLOATS, "Q8_0"})
        ):
            return "lora"
    return _FOLDERS.get(folder.rpartition("/")[2].lower(), "model")


def _base(stem: str) -> str:
    """The model's own name in a stem."""
    rest = _NOT_A_NAME.sub(" ", _QUANT.sub(" ", _BARE.sub(" ", stem)))
    return re.sub(r"[-._ ]+(?= |$)|(?<= )[-._ ]+|^[-._ ]+", "", rest).strip().lower()


_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE
)
_RESERVED = frozenset('<>:"|?*')
_MAX_NAME_BYTES = 255  # ext4, APFS, NTFS
_MAX_PATH_BYTES = 1000


def check_repo_path(path: str) -> None:
    """Makes sure that a path out of a listing stays in its folder, on Linux, macOS and Windows.

    A listing is somebody else's word: a path from it is joined to a folder of ours and then
    written to (CVE-2024-37032 was Ollama doing so unasked).

    Raises:
        IntegrityError: it is absolute, climbs, names a drive, stream or device, holds what a
            file system takes for something else, or shows otherwise than it is.
    """
    if wrong := _wrong_with(path):
        raise IntegrityError(
            f"the repository lists a file {path[:100]!r}, which {wrong}",
            "no file of this name is written; tell the repository's owner",
        )


def _wrong_with(path: str) -> str | None:
    """What is wrong with a path, in a clause, or None."""
    if not path:
        return "has no name"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not Unicode text"
    if size > _MAX_PATH_BYTES:
        return f"is longer than {_MAX_PATH_BYTES} bytes"
    for letter in path:
        # Cc: control; Cf: direction marks, zero-width letters; Zl and Zp: line ends.
        if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp"):
            return f"holds the unprintable character U+{ord(letter):04X}"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    if bad := sorted(_RESERVED.intersection(path)):
        return f"holds {bad[0]!r}, which Windows takes for something else"
    # Something on the way may decode them.
    if match := re.search(r"%(?:2e|2f|5c|00)", path, re.IGNORECASE):
        return f"hides a character as {match[0]!r}"
    for name in path.split("/"):
        if name == "":
            return "has an empty part"
        if name in (".", ".."):
            return f"climbs with {name!r}"
        if name[-1] in ". ":
            return f"ends a name with {name[-1]!r}, which Windows drops"
        if _DEVICES.fullmatch(name.partition(".")[0].rstrip()):
            return f"names the device {name.partition('.')[0].rstrip()!r} on Windows"
        if len(name.encode()) > _MAX_NAME_BYTES:
            return f"has a part longer than {_MAX_NAME_BYTES} bytes"
    return None
