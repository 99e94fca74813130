"""The server: OpenAI's endpoints for a team and each of its members, and a page."""

import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..rollouts.talks import Talk
from ..team import Team
from .answers import StreamedChoice, as_event, usage_chunk, whole_answer
from .desk import Desk
from .errors import APIError, wrong
from .limits import ServerSettings
from .orders import Order, read_order
from .visits import Visit


# What a page of another site must not do in the browser of someone who serves a team at home
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Server:
    """
    A team behind a web application.

    Args:
        team ([`Team`]): The team, in evaluation mode.
        settings ([`ServerSettings`]): Its limits.
    """

    def __init__(self, team: Team, settings: ServerSettings):
        self.settings = settings
        self.models = {settings.name: team}
        if len(team.names) > 1:
            self.models |= {f"{settings.name}/{name}": team.member(name) for name in team.names}
        self.desk = Desk(settings.max_talks, settings.max_waiting)
        self._page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    def check_key(self, request: Request):
        """Raise `APIError` unless the request has the key, if there is one."""
        key = self.settings.api_key
        if key is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not given:
            message = "There is no API key in the request. Send `Authorization: Bearer <key>`."
            raise APIError(401, message, code="invalid_api_key")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise APIError(401, "The API key is wrong.", code="invalid_api_key")

    async def read_body(self, request: Request) -> dict[str, Any]:
        """The body of a request; raises `APIError` if it is too large, or no JSON object."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise APIError(415, "The body must be JSON. Send `Content-Type: application/json`.")
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.settings.max_body:
                raise APIError(413, f"The body has more than {self.settings.max_body} bytes. Send a shorter one.")
            parts.append(part)
        try:
            body = json.loads(b"".join(parts))
        except ValueError as error:
            raise wrong(f"The body is no JSON: {error}.") from error
        if not isinstance(body, dict):
            raise wrong(f"The body must be a JSON object, got {type(body).__name__}.")
        return body

    def visit(self, order: Order) -> Visit:
        """The visit of a request, whose conversations wait at the desk from now on."""
        team = self.models.get(order.model)
        if team is None:
            raise APIError(
                404,
                f"The model `{order.model}` does not exist. There are: {', '.join(self.models)}.",
                code="model_not_found",
                param="model",
            )
        return Visit(team, order, self.desk)

    def describe(self) -> dict[str, Any]:
        """The list of models."""
        models = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "trl-teamtr",
                "teamtr": {"agents": [*team.names]},
            }
            for name, team in self.models.items()
        ]
        return {"object": "list", "data": models}

    @property
    def page(self) -> str:
        """The page on which one talks to the team."""
        return self._page


def make_app(team: Team, settings: ServerSettings, host: str = "127.0.0.1") -> FastAPI:
    """
    The web application of a team.

    Args:
        team ([`Team`]): The team, in evaluation mode.
        settings ([`ServerSettings`]): Its limits.
        host (`str`): The address that it is bound to. On this machine alone, requests must name it so.
    """
    server = Server(team, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.desk.open()
        yield
        server.desk.close()

    app = FastAPI(title="trl-teamtr", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    local = ["127.0.0.1", "localhost"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=local if host in local else ["*"])

    @app.exception_handler(APIError)
    async def tell(request: Request, error: APIError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers={"Retry-After": "1"} if error.status == 429 else None)

    @app.exception_handler(HTTPException)
    async def tell_http(request: Request, error: HTTPException) -> JSONResponse:
        told = APIError(error.status_code, f"{request.method} {request.url.path}: {error.detail}.")
        return JSONResponse(told.body, told.status)

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(server.page, headers=_HEADERS)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **server.desk.load}

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        server.check_key(request)
        return server.describe()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        server.check_key(request)
        order = read_order(await server.read_body(request), settings.max_choices)
        visit = server.visit(order)
        if order.stream:
            # The first event shows whether the prompt fits: until then there is an HTTP status to tell it with
            events = stream(visit, request.is_disconnected, settings.timeout)
            first = await anext(events)
            return StreamingResponse(_after(first, events), media_type="text/event-stream", headers=_HEADERS)
        async for _ in visit.hear(request.is_disconnected, settings.timeout):
            pass
        return JSONResponse(whole_answer(visit.heading, visit.talks))

    return app


async def _after(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for event in events:
        yield event


async def stream(visit: Visit, is_gone: Callable[[], Awaitable[bool]], timeout: float) -> AsyncIterator[str]:
    """The server-sent events of a visit. Errors before the first one are raised, later ones are told in an event."""
    choices = [StreamedChoice(visit.heading, i, visit.last_turn) for i in range(visit.order.n)]
    begun = False

    async def is_gone_at_first() -> bool:
        return not begun and await is_gone()  # later the response itself looks

    try:
        async for index, event in visit.hear(is_gone_at_first, timeout):
            chunks = [] if begun else [choice.begin() for choice in choices]
            begun = True
            chunks += choices[index].end(event) if isinstance(event, Talk) else [choices[index].hear(event)]
            for chunk in chunks:
                yield as_event(chunk)
    except APIError as error:
        if not begun:
            raise
        yield as_event(error.body)
        return
    options = visit.order.stream_options
    if options is not None and options.include_usage:
        yield as_event(usage_chunk(visit.heading, visit.talks))
    yield as_event("[DONE]")
