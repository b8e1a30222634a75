"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}} with a fitting status."""

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
from elysia.core.i18n import render

log = logging.getLogger(__name__)

ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(fastapi.HTTPException):
    """An error that the client sees, always in English.

    `message_code` and `params` name a sentence as in `ElysiaError`; a text that is no code is sent as it
    is. `api_code` and `param` are OpenAI's fields. It derives from FastAPI's exception because FastAPI
    lets only its own pass while it reads a body.
    """

    def __init__(
        self,
        message_code: str,
        /,
        status: int,
        *,
        api_code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        **params: Any,
    ) -> None:
        self.message = render(message_code, params)
        super().__init__(status, self.message)
        self.status = status
        self.api_code = api_code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON that OpenAI's API would send."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = ERROR_TYPES.get(self.status, default)
        return {
            "error": {
                "message": self.message, "type": kind, "param": self.param, "code": self.api_code,
            }
        }  # fmt: skip

    def response(self) -> Response:
        """The complete answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


def rate_limit_error(message_code: str, wait: float, **params: Any) -> ApiError:
    """A 429 that tells the client when to come again, in whole seconds."""
    return ApiError(
        message_code, 429, api_code="rate_limit_exceeded",
        headers={"Retry-After": str(max(1, round(wait)))}, **params,
    )  # fmt: skip


def as_api_error(error: Exception) -> ApiError:
    """What a client sees of any exception. Bugs of the server are logged, and their details hidden."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError):
        code = "context_length_exceeded" if isinstance(error, ContextError) else None
        return ApiError(str(error), 400, api_code=code)
    if isinstance(error, EngineError):
        return ApiError(str(error), 503, api_code="engine_error", headers={"Retry-After": "1"})
    if isinstance(error, ElysiaError):
        return ApiError(str(error), 400)
    log.error("A request failed because of a bug in the server.", exc_info=error)
    return ApiError("gateway.server_bug", 500, api_code="internal_error")


def install_error_handlers(app: FastAPI) -> None:
    """Let every error of `app` leave it in this form."""

    @app.exception_handler(RequestValidationError)
    async def on_invalid_body(request: Request, error: RequestValidationError) -> Response:
        # Where a field allows several types, the deepest error belongs to the type that was meant.
        first = max(error.errors(), key=lambda fault: len(fault["loc"]))
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        text = first["msg"] if not where else f"{where}: {first['msg']}"
        if first["type"] == "model_attributes_type" and not where:
            return ApiError("gateway.body_not_object", 400).response()
        return ApiError(f"{text}.".replace("..", "."), 400, param=where or None).response()

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            fault = ApiError(
                "gateway.no_such_path", 404, headers=error.headers, path=request.url.path
            )
        elif error.status_code == 405:
            fault = ApiError(
                "gateway.wrong_method", 405, headers=error.headers, method=request.method,
                path=request.url.path,
            )  # fmt: skip
        else:
            fault = ApiError(str(error.detail), error.status_code, headers=error.headers)
        return fault.response()

    @app.exception_handler(ApiError)
    async def on_api_error(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(ElysiaError)
    async def on_known_error(request: Request, error: ElysiaError) -> Response:
        return as_api_error(error).response()

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        return as_api_error(error).response()
