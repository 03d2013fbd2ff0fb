"""The Hugging Face hub, its mirrors and private copies: what a repository holds at which commit.

Uses huggingface_hub for what it does well: tokens, endpoints, proxies, the API, offline mode. The
files' bytes come another way (download.py), as that library neither resumes nor checks them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localllm.digests import Claim
from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError, UsageError
from localllm.hub import checksums
from localllm.hub.address import Credentials, Secret, host_of, origin_of
from localllm.hub.patience import TransientError, wait_asked
from localllm.hub.remote import RemoteFile
from localllm.hub.source import Listing, SourceKind
from localllm.hub.web import Reply, Web, refusal
from localllm.units import format_seconds
from localllm.variants import RepoFile

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
#: What huggingface_hub raises over an answer that is no JSON, or of another shape.
_NO_HUB = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PUBLIC_HOSTS = ("huggingface.co", "hf.co")


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT where that is set, for mirrors and private copies.

    Raises:
        UsageError: HF_ENDPOINT is no address.
    """
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


class HuggingFace:
    """One repository on the hub; a Source.

    Attributes:
        kind, repo: see Offer.

    Args:
        web: the way there.
        repo: "org/repo".
        revision: a branch, tag or commit; None for main.
    """

    kind: SourceKind = "hf"

    def __init__(self, web: Web, repo: str, revision: str | None = None) -> None:
        self._web = web
        self.repo = repo
        self._asked = revision or MAIN
        self._endpoint = endpoint()
        self._host = host_of(self._endpoint)
        self._known_token: Secret | None = None

    @property
    def key(self) -> str:
        """What it is remembered under; a mirror's word is kept apart from the hub's."""
        mirror = "" if self._host in _PUBLIC_HOSTS else f" at {self._host}"
        return f"hf:{self.repo}@{self._asked}{mirror}"

    def listing(self) -> Listing:
        """The files at the commit that the revision stands for now; see Source."""
        info = self._web.persist(self._ask)
        files = tuple(filter(None, map(_file, info.siblings or ())))
        if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
            raise NetworkError(f"{self._host} does not say which commit of {self.repo} it lists")
        return Listing(
            kind="hf",
            repo=self.repo,
            asked=self._asked,
            revision=info.sha,
            files=files,
            authority=self._host,
            is_origin=self._host in _PUBLIC_HOSTS,
            gated=bool(info.gated),
        )

    def remote(self, listing: Listing, file: RepoFile) -> RemoteFile:
        """The file at the listing's commit; see Source."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.repo, file.path, revision=listing.revision, endpoint=self._endpoint)
        return RemoteFile(
            self._web,
            url,
            file.path,
            credentials=self._credentials(),
            size_bytes=file.size_bytes,
            refuse=self._refused,
        )

    def checksums(self, listing: Listing, file: RepoFile) -> Sequence[Claim]:
        """What checksum files of the repository say; see Source."""
        return checksums.read_listed(self, listing, file)

    def _token(self) -> Secret | None:
        if self._known_token is None:
            from huggingface_hub import get_token

            token = get_token()
            self._known_token = Secret(token) if token else None
        return self._known_token

    def _credentials(self) -> Credentials | None:
        token = self._token()
        if token is None:
            return None
        bearer = Secret(f"Bearer {token.reveal()}")
        return Credentials(origin_of(self._endpoint), {"Authorization": bearer})

    def _ask(self) -> Any:
        """The repository's metadata, or an error of ours."""
        from huggingface_hub import HfApi, errors

        if self._web.offline:
            raise NetworkError(
                f"{self._host} was not asked for {self.repo}, because this is offline mode",
                "leave out --offline, or unset HF_HUB_OFFLINE",
            )
        token = self._token()
        api = HfApi(endpoint=self._endpoint, token=token.reveal() if token else False)
        try:
            return api.model_info(
                self.repo,
                revision=self._asked,
                files_metadata=True,
                timeout=self._web.limits.idle_seconds,
            )
        except errors.HfHubHTTPError as exc:
            # `from None`: its own error holds the request with its headers.
            raise self._explained(exc.response.status_code, exc.response.headers) from None
        except errors.OfflineModeIsEnabled:
            raise NetworkError(
                f"{self._host} was not asked for {self.repo}, because HF_HUB_OFFLINE is set",
                "unset it, or name a model that is here: localllm list",
            ) from None
        except errors.HFValidationError:
            raise UsageError(
                f"{self.repo!r} cannot be a repository on {self._host}", "write org/repo"
            ) from None
        except Exception as exc:
            # httpx's errors until huggingface_hub 2.3, httpx2's since; and what is no JSON.
            kinds = {base.__name__ for base in type(exc).__mro__}
            if "TransportError" in kinds or isinstance(exc, OSError):
                raise TransientError(
                    f"{self._host} cannot be reached ({type(exc).__name__})",
                    "is there a network? localllm doctor --network REF looks where it breaks;"
                    " --offline works with what is here",
                ) from None
            if isinstance(
                exc, (ValueError, LookupError, TypeError, AttributeError, RecursionError)
            ):
                raise NetworkError(
                    f"{self._host} does not answer as the hub does",
                    "is HF_ENDPOINT right, or does a login page stand before the network?",
                ) from None
            raise

    def _refused(self, reply: Reply, what: str) -> LocalllmError:
        if reply.status in (401, 403, 404):
            return self._explained(reply.status, reply.headers, what)
        return refusal(reply, what)

    def _explained(
        self, status: int, headers: Mapping[str, str], file: str | None = None
    ) -> LocalllmError:
        """The hub's refusals: its X-Error-Code says more than the status does."""
        code = headers.get("X-Error-Code", "")
        repo, page = self.repo, f"{self._endpoint}/{self.repo}"
        if code == "GatedRepo":
            hint = "consent there with the account of your token"
            if self._token() is None:
                hint = f"{hint}; then set HF_TOKEN or run: hf auth login"
            return AccessError(f"{repo} asks for consent before a download: {page}", hint)
        if code == "RevisionNotFound":
            return NotFoundError(
                f"{repo} has no revision {self._asked!r}", f"its branches: {page}/tree/main"
            )
        if code == "EntryNotFound":
            return NotFoundError(f"{repo} has no file {file!r}", f"its files: {page}/tree/main")
        if code == "DisabledRepo":
            return AccessError(f"{self._host} has disabled {repo}", page)
        if code == "RepoNotFound" or status == 404:
            # The hub does not tell what is private from what is not there.
            hint = "check the spelling, and that the account of your token may see it"
            if self._token() is None:
                hint = "check the spelling; a private one wants HF_TOKEN, or: hf auth login"
            return NotFoundError(f"there is no {repo} on {self._host}", hint)
        if status in (401, 403):
            return AccessError(
                f"{self._host} does not give {repo} to this user ({status})",
                "is the token valid, and may it read? hf auth whoami",
            )
        error = TransientError(
            f"{self._host} has had too many requests (429)"
            if status == 429
            else f"{self._host} fails to answer for {repo} ({status})",
            "try again in some minutes",
        )
        error.wait_seconds = wait_asked(headers)
        if error.wait_seconds:
            token = "" if self._token() else "; with a token it allows more: HF_TOKEN"
            error.hint = f"it asks to wait {format_seconds(error.wait_seconds)}{token}"
        return error


def _file(sibling: RepoSibling) -> RepoFile | None:
    """A file as the hub lists it; None for what is none: a listing is somebody else's word.

    sha256 of what is in LFS, git's sha1 of the rest.
    """
    path, size = sibling.rfilename, sibling.size
    if not isinstance(path, str) or type(size) is not int or size < 0:
        return None
    lfs = sibling.lfs
    if lfs is None:
        return RepoFile(path, size, git_sha1=_digest(sibling.blob_id, _COMMIT))
    return RepoFile(path, size, _digest(lfs.sha256, _SHA256))


def _digest(said: object, form: re.Pattern[str]) -> str | None:
    return said.lower() if isinstance(said, str) and form.fullmatch(said.lower()) else None
