"""Faults in OpenAI's form: {"error": {"message", "type", "param", "code"}} under a fitting status.

Knows nothing of engines.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import fastapi
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from elysia.core.errors import ContextError, ElysiaError, EngineError, RequestError

log = logging.getLogger(__name__)

ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(fastapi.HTTPException):
    """A fault that the client is told of. FastAPI lets its own exceptions through a body's reading."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = ERROR_TYPES.get(self.status, usual)
        return {
            "error": {
                "message": self.message, "type": kind, "param": self.param, "code": self.code,
            }
        }  # fmt: skip

    def response(self) -> Response:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any exception; our own mistakes are logged, and not shown."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError):
        code = "context_length_exceeded" if isinstance(error, ContextError) else None
        return ApiError(400, str(error), code=code)
    if isinstance(error, EngineError):
        return ApiError(503, str(error), code="engine_error", headers={"Retry-After": "1"})
    if isinstance(error, ElysiaError):
        return ApiError(400, str(error))
    log.error("A request failed by a mistake of ours.", exc_info=error)
    return ApiError(500, "The server made a mistake; its log says which.", code="internal_error")


def install_error_handlers(app: FastAPI) -> None:
    """Let every fault of `app` leave in this form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Where one of several shapes would do, the fault that lies deepest is in the one that was meant.
        first = max(error.errors(), key=lambda fault: len(fault["loc"]))
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        text = first["msg"] if not where else f"{where}: {first['msg']}"
        if first["type"] == "model_attributes_type" and not where:
            text = "The body is no JSON object. Send it with 'Content-Type: application/json'."
        return ApiError(400, f"{text}.".replace("..", "."), param=where or None).response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        text = str(error.detail)
        if error.status_code == 404:
            text = f"There is no {request.url.path} here."
        if error.status_code == 405:
            text = f"{request.method} is not what {request.url.path} takes."
        return ApiError(error.status_code, text, headers=error.headers).response()

    @app.exception_handler(ApiError)
    async def told(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(ElysiaError)
    async def explained(request: Request, error: ElysiaError) -> Response:
        return as_api_error(error).response()

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        return as_api_error(error).response()
