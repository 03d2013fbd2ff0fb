"""One llama-server process and the way to it: what lasts for one life of a replica."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Mapping

import aiohttp
from yarl import URL

from localllm.engine.server import LlamaServer
from localllm.errors import LocalllmError
from localllm.gateway.backends import BrokenError
from localllm.gateway.threads import in_thread

#: An answer takes as long as it takes; how the gateway itself looks after it does not.
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
_PROBE = aiohttp.ClientTimeout(total=3.0)


class Child:
    """A llama-server that is started once and ended once.

    Args:
        server: it, not yet started.

    Attributes:
        alarm: set when the process has gone; others may set it, too.
    """

    def __init__(self, server: LlamaServer) -> None:
        self.alarm = asyncio.Event()
        self._server = server
        self._session: aiohttp.ClientSession | None = None
        self._base_url = ""
        self._answers: weakref.WeakSet[aiohttp.ClientResponse] = weakref.WeakSet()

    # The process.

    async def start(self) -> None:
        """Spawns it; it loads its model then.

        Raises:
            EngineError, OSError: it cannot be spawned.
        """
        await in_thread(self._server.start)
        self._connect()
        self._call_when_ended()

    async def stop(self) -> None:
        """Ends it, and tells all who still read an answer of it."""
        await self._disconnect()
        await in_thread(self._server.stop)

    async def kill(self) -> None:
        """Ends it by SIGKILL."""
        await in_thread(self._server.kill)

    @property
    def pid(self) -> int | None:
        """llama-server's own."""
        return self._server.pid

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._server.poll()

    async def wait(self, seconds: float) -> int | None:
        """The same, after so long at most."""
        return await in_thread(lambda: self._server.wait(seconds))

    def cpu_seconds(self) -> float | None:
        """Processor time that it has used; None where nobody knows."""
        return self._server.cpu_seconds()

    def log(self) -> str:
        """The last of what it printed."""
        return self._server.log()

    async def explain(
        self, status: int, *, loading: bool, killed_for_memory: bool
    ) -> LocalllmError:
        """See LlamaServer.explain."""
        return await in_thread(
            lambda: self._server.explain(
                status, loading=loading, killed_for_memory=killed_for_memory
            )
        )

    async def pause(self, seconds: float) -> None:
        """So long, or until the alarm."""
        # wait_for would swallow a cancellation that comes with the alarm (before Python 3.12).
        timer = asyncio.get_running_loop().call_later(seconds, self.alarm.set)
        try:
            await self.alarm.wait()
        finally:
            timer.cancel()
            self.alarm.clear()

    # The way to it.

    async def open(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        """See Backend."""
        return await self._request(method, target, headers, body, _PATIENT)

    async def _request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise BrokenError("it is not there")
        try:
            answer = await self._session.request(
                method,
                URL(self._base_url + target, encoded=True),  # or dots in it would be resolved
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=timeout,
            )
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as exc:
            raise BrokenError(str(exc) or type(exc).__name__) from exc
        self._answers.add(answer)
        return answer

    async def is_healthy(self) -> bool:
        """Whether its model is loaded."""
        return await self._probe("/health") is not None

    async def slots(self) -> object:
        """What its slots have done so far; None where it does not answer.

        It goes through the very loop that computes, which /health does not.
        """
        return await self._probe("/slots")

    async def metrics(self) -> bytes:
        """See Backend."""
        try:
            with contextlib.closing(await self._look("/metrics")) as response:
                return await response.read() if response.status == 200 else b""
        except (BrokenError, aiohttp.ClientError, asyncio.TimeoutError):
            return b""

    async def _probe(self, path: str) -> object:
        """The JSON of a path; None while the model is loading, or nothing comes in time."""
        try:
            with contextlib.closing(await self._look(path)) as response:
                if response.status == 503:
                    return None
                return await response.json(content_type=None)
        except (BrokenError, aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            return None

    async def _look(self, path: str) -> aiohttp.ClientResponse:
        return await self._request("GET", path, {}, None, _PROBE)

    def _connect(self) -> None:
        endpoint = self._server.require_endpoint()
        # llama-server closes an idle connection after 5 s: none is kept.
        connector = (
            aiohttp.UnixConnector(endpoint.socket_path, force_close=True, limit=0)
            if endpoint.socket_path is not None
            else aiohttp.TCPConnector(force_close=True, limit=0)
        )
        self._base_url = endpoint.base_url
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # A header of llama-server's is short, but what a model is called is for people.
            max_field_size=65536,
        )

    async def _disconnect(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            # Who reads an answer would wait for ever: closing the session does not tell it, where
            # the connection's end was not read yet (it stopped reading for a slow client).
            for answer in list(self._answers):
                if not answer.content.is_eof():
                    answer.content.set_exception(aiohttp.ClientConnectionError("it has ended"))
            await session.close()

    def _call_when_ended(self) -> None:
        """Raises the alarm as soon as the process is gone."""
        loop = asyncio.get_running_loop()

        def wait() -> None:
            self._server.wait()
            with contextlib.suppress(RuntimeError):  # the loop is gone, too
                loop.call_soon_threadsafe(self.alarm.set)

        threading.Thread(target=wait, name="llama-server-end", daemon=True).start()
