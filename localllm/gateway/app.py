"""Every request from its first line to its last log line, whatever becomes of it.

Its way: the door (Host, Origin), our own paths, the key, its limits, the queue's limit, the body,
the relay. What ends a request early is Refused, here answered in llama-server's form.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from localllm.gateway import credentials, openapi, routes
from localllm.gateway.ask import conversation, read_ask
from localllm.gateway.backends import Pool
from localllm.gateway.credentials import KeyRing
from localllm.gateway.door import Door
from localllm.gateway.door import Refusal as Closed
from localllm.gateway.exchange import Exchange, Observer
from localllm.gateway.flights import Flight, Flights
from localllm.gateway.limits import Limiter
from localllm.gateway.queue import Queue
from localllm.gateway.refusal import Refused
from localllm.gateway.relay import Relay, cut_off
from localllm.gateway.routes import Route
from localllm.gateway.settings import Settings
from localllm.units import format_bytes

_JSON = "application/json; charset=utf-8"
#: What stands in a path as it is (RFC 3986, 3.3).
_PATH_CHARACTERS = "/:@!$&'()*+,;="


@dataclass(frozen=True)
class Rules:
    """What may change while the server runs (SIGHUP).

    Attributes:
        settings: limits of all kinds.
        keys: those that open the server; none asks for none.
        door: which Hosts and Origins may come.
    """

    settings: Settings
    keys: tuple[KeyRing, ...]
    door: Door


class App:
    """Answers HTTP.

    Args:
        pool, queue, flights: what it composes.
        rules: see Rules; may be replaced at any time.
        limiter: what keys may use.
        observers: told of every exchange.
        moved: told how many tokens of a stream went by.
        metrics: the text of /metrics and its headers.
        bug: told of an exception that nobody expected.
    """

    def __init__(
        self,
        pool: Pool,
        queue: Queue,
        flights: Flights,
        rules: Rules,
        limiter: Limiter,
        *,
        model_names: Sequence[str],
        observers: Sequence[Observer],
        moved: Callable[[int], None],
        metrics: Callable[[], Awaitable[tuple[bytes, Mapping[str, str]]]],
        bug: Callable[[BaseException], None],
    ) -> None:
        self.rules = rules
        #: New requests are refused; those that run go on.
        self.is_draining = False
        self._pool = pool
        self._queue = queue
        self._flights = flights
        self._limiter = limiter
        self._relay = Relay(pool, queue, moved)
        self._model_names = frozenset(model_names)
        self._observers = tuple(observers)
        self._metrics = metrics
        self._bug = bug

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request."""
        path = self._path(request)
        route = routes.find(request.method, path)
        exchange = Exchange(
            id=secrets.token_hex(8),
            arrived_at=time.time(),
            method=request.method,
            path=request.path,
            route=route.pattern,
            generates=route.generates,
            client=request.remote or "",
        )
        flight = self._flights.begin(exchange, request.transport)
        origins = request.headers.getall(hdrs.ORIGIN, [])
        headers = {
            hdrs.SERVER: "localllm",  # or aiohttp would tell its version and Python's
            "X-Request-Id": exchange.id,
            **self.rules.door.cors_headers(origins),
        }
        try:
            response = await self._answer(request, flight, route, path, headers)
            exchange.status = exchange.status or response.status
            return response
        except Refused as refused:
            return self._refuse(request, exchange, refused, headers)
        except asyncio.CancelledError:
            if flight.refusal is not None and (late := flight.outlive()):
                return self._refuse(request, exchange, late, headers)
            _left(exchange)
            raise
        except ConnectionError:
            _left(exchange)
            raise asyncio.CancelledError from None
        except Exception as bug:
            self._bug(bug)
            exchange.outcome = "failed"
            ours = Refused(500, f"this is a bug in localllm: {type(bug).__name__}")
            return self._refuse(request, exchange, ours, headers)
        finally:
            exchange.total_seconds = flight.elapsed
            self._flights.done(flight)
            for observer in self._observers:
                observer.ended(exchange)

    async def _answer(
        self,
        request: web.BaseRequest,
        flight: Flight,
        route: Route,
        path: str,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        preflight = self._at_the_door(request, headers)
        if preflight is not None:
            return preflight
        if (own := self._health(path)) is not None:
            status, document = own
            return web.json_response(document, status=status, headers=headers)
        if self.is_draining:
            raise Refused(503, "the server is shutting down", 5)
        target = _target(request, path)
        key = self._key(request)
        if key is None:
            # llama-server knows itself what it shows to everybody: its page and its health.
            if request.method not in ("GET", "HEAD", "OPTIONS") or path in routes.PRIVATE:
                raise Refused(401, "Invalid API Key")
            return await self._relay.pass_on(
                request, flight, route, target, None, headers, with_key=False
            )
        flight.exchange.key = key
        if path == routes.METRICS and request.method == "GET":
            page, more = await self._metrics()
            return web.Response(body=page, headers={**headers, **more})
        if path == routes.OPENAPI and request.method == "GET":
            return web.json_response(openapi.document(), headers=headers)
        if not route.generates:
            body = await self._body(request, flight)
            return await self._relay.pass_on(request, flight, route, target, body, headers)
        return await self._generate(request, flight, route, target, headers, key)

    async def _generate(
        self,
        request: web.BaseRequest,
        flight: Flight,
        route: Route,
        target: str,
        headers: dict[str, str],
        key: str,
    ) -> web.StreamResponse:
        exchange = flight.exchange
        refusal = self._limiter.admit(key)
        if refusal is not None:
            raise Refused(429, refusal.reason, refusal.retry_after_seconds)
        try:
            self._queue.check()  # before the body: who is refused should not have to send it
            body = await self._body(request, flight)
            ask = read_ask(body)
            if name := request.headers.get("X-Conversation-Id"):
                ask = replace(ask, prefix=(*ask.prefix, conversation(name)))
            exchange.model, exchange.streams = ask.model, ask.streams
            if self.rules.settings.log_prompts:
                exchange.body = body.decode("utf-8", "replace")
            return await self._relay.generate(request, flight, route, target, body, ask, headers)
        finally:
            computed = (exchange.n_prompt or 0) - (exchange.n_cached or 0)
            self._limiter.ended(key, max(0, computed) + (exchange.n_tokens or 0))

    def _at_the_door(
        self, request: web.BaseRequest, headers: dict[str, str]
    ) -> web.StreamResponse | None:
        """The answer to a preflight; None for what may come in.

        Raises:
            Refused: it may not.
        """
        if request.version not in (HttpVersion10, HttpVersion11):
            raise Refused(400, "the request is of no version of HTTP that is spoken here")
        door, of = self.rules.door, request.headers
        origins, hosts = of.getall(hdrs.ORIGIN, []), of.getall(hdrs.HOST, [])
        if not hosts and request.version == HttpVersion10:
            hosts = ["localhost"]  # HAProxy's checks send none; every browser does
        closed = door.check(
            hosts,
            origins,
            of.get("Sec-Fetch-Site", ""),
            request.method,
            sec_fetch_mode=of.get("Sec-Fetch-Mode", ""),
            sec_fetch_dest=of.get("Sec-Fetch-Dest", ""),
        )
        if closed is not None:
            raise Refused(closed.status, closed.reason)
        if request.method == "OPTIONS" and origins and hdrs.ACCESS_CONTROL_REQUEST_METHOD in of:
            answer = door.preflight(origins, of.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ""))
            if isinstance(answer, Closed):
                raise Refused(answer.status, answer.reason)
            return web.Response(headers={**headers, **answer})
        return None

    def _key(self, request: web.BaseRequest) -> str | None:
        """The name of the request's key; "" where none is asked for; None for a wrong one."""
        rings = self.rules.keys
        if not rings:
            return ""
        given = credentials.presented(request.headers)
        if given is None:
            return None
        # All of them, so that it takes as long whichever it is.
        return next((name for name in [ring.find(given) for ring in rings] if name), None)

    def _health(self, path: str) -> tuple[int, dict[str, object]] | None:
        """Our own answers about ourselves, for whoever asks; None for other paths."""
        if path in (routes.HEALTHZ, "/v2/health/live"):
            return 200, {"status": "ok", "live": True}
        is_ready = self._pool.is_ready and not self.is_draining
        status = 200 if is_ready else 503
        if path in (routes.READYZ, "/v2/health/ready"):
            return status, {"status": "ok" if is_ready else "not ready", "ready": is_ready}
        if path.startswith("/v2/models/") and path.endswith("/ready"):
            name = path.removeprefix("/v2/models/").removesuffix("/ready")
            # Triton's path may name a version; there is one.
            name = name.split("/versions/")[0]
            if name not in self._model_names:
                raise Refused(404, f"there is no model {name[:100]!r}")
            return status, {"name": name, "ready": is_ready}
        return None

    async def _body(self, request: web.BaseRequest, flight: Flight) -> bytes:
        """The request's body, whole.

        Raises:
            Refused: it is too large, or all bodies together are.
        """
        settings = self.rules.settings
        if not request.can_read_body:
            return b""
        most = settings.body_bytes
        too_large = Refused(413, f"a request may have {format_bytes(most)}")
        if request.content_length is not None and request.content_length > most:
            raise too_large
        waits = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
        if waits and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces = []
        async for piece in request.content.iter_any():
            pieces.append(piece)
            flight.n_body += len(piece)
            if flight.n_body > most:
                raise too_large
            if self._flights.n_body > settings.bodies_bytes:
                raise Refused(503, "too many large requests at the same time", 1)
        flight.exchange.received_bytes = flight.n_body
        return b"".join(pieces)

    def _path(self, request: web.BaseRequest) -> str:
        """The path without the prefix, decoded as llama-server decodes it; "" outside of it."""
        prefix, path = self.rules.settings.api_prefix, request.path
        if not prefix:
            return path
        if path == prefix or path.startswith(prefix + "/"):
            return path[len(prefix) :] or "/"
        return ""

    def _refuse(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        refused: Refused,
        headers: dict[str, str],
    ) -> web.Response:
        if exchange.outcome == "answered":
            exchange.outcome = "failed" if exchange.attempts else "refused"
        exchange.error = refused.message
        if request.writer.output_size:  # another answer has begun, and cannot end well
            cut_off(request)
            raise asyncio.CancelledError
        exchange.status = refused.status
        response = web.Response(
            status=refused.status,
            body=refused.body,
            headers={**headers, **refused.headers, hdrs.CONTENT_TYPE: _JSON},
            reason=_phrase(refused.status),
        )
        # What is left of its body is not waited for.
        if request.can_read_body and not request.content.is_eof():
            response.force_close()
        return response


def _target(request: web.BaseRequest, path: str) -> str:
    """What the backend is asked for: the path as its route was found, and the query, as sent.

    The path is written anew: llama-server, and the client that asks it, read more spellings of one
    than we do (%u0063, dots), in which a request that generates would take no slot of ours.

    Raises:
        Refused: 404, it is outside of the prefix; 400, it is none.
    """
    if not path:
        raise Refused(404, "File Not Found")
    if not path.startswith("/"):
        raise Refused(400, "the request's target is no path")
    target = quote(path, safe=_PATH_CHARACTERS, errors="surrogateescape")
    query = request.rel_url.raw_query_string
    return f"{target}?{query}" if query else target


def _left(exchange: Exchange) -> None:
    exchange.outcome, exchange.error = "client left", "the client left before it had its answer"
    # nginx's number for it, which tools that read access logs know.
    exchange.status = exchange.status or 499


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
