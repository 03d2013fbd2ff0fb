"""Where models come from: hubs, plain servers, and files on this disk.

source.py        the one door: what a source lists, how its files are reached
huggingface.py   modelscope.py   weburl.py      the sources
llamafile.py     a GGUF inside a zip
localfile.py     a model on this disk
web.py           HTTP: proxies, redirects, refusals, secrets
remote.py        one file behind a URL, by ranges
patience.py      what is worth another attempt, and when
headers.py       the headers of a repository, with as little as will do
opened.py        what headers tell
known.py         what was looked at before
checksums.py     checksum files beside models
part.py          a file under way
download.py      the verified download
"""

from __future__ import annotations

from localllm.hub.source import Source
from localllm.hub.web import Web
from localllm.naming import ModelRef


def open_source(ref: ModelRef, web: Web) -> tuple[Source, str | None]:
    """The source that a reference names, and the one file of it where it names one.

    A URL of a hub's page or file is that repository; any other URL is a server's own file.

    Args:
        ref: of kind "hf", "ms" or "url".
        web: the way there.

    Raises:
        UsageError: the URL cannot be one of a model.
    """
    from localllm.hub import huggingface, modelscope, weburl

    file = None
    if ref.kind == "url":
        there = weburl.as_hub_ref(ref.text, huggingface.endpoint())
        if there is None:
            return weburl.WebUrl(web, ref.text), None
        ref, file = there
    assert ref.repo is not None
    if ref.kind == "ms":
        return modelscope.ModelScope(web, ref.repo, ref.revision), file
    return huggingface.HuggingFace(web, ref.repo, ref.revision), file
