"""A small OpenID provider on loopback: anna, bela and eve log in at it by a click, without passwords.

Discovery, authorization code with PKCE where it is asked for, signed id_tokens, keys, logout.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "elysia", "the client's secret"
PEOPLE = {
    "anna": {"sub": "a-1", "name": "Anna", "email": "anna@example.org", "email_verified": True},
    "bela": {"sub": "b-2", "name": "Bela", "email": "bela@lab.example", "email_verified": True},
    "eve": {"sub": "e-3", "name": "Eve", "email": "anna@example.org", "email_verified": False},
}


class ProviderHandler(BaseHTTPRequestHandler):
    """One request; what it knows of logins in progress is the server's."""

    def do_GET(self) -> None:
        path, asked = self._asked(urlsplit(self.path).query)
        here = f"http://127.0.0.1:{self.server.server_port}"
        if path == "/.well-known/openid-configuration":
            names = {"authorization": "authorize", "token": "token", "end_session": "logout"}
            endpoints = {f"{name}_endpoint": f"{here}/{at}" for name, at in names.items()}
            self._json({"issuer": here, "jwks_uri": f"{here}/jwks", **endpoints,
                        "response_types_supported": ["code"], "subject_types_supported": ["public"],
                        "id_token_signing_alg_values_supported": ["RS256"]})  # fmt: skip
        elif path == "/jwks":
            self._json({"keys": [self.server.key.as_dict(private=False)]})
        elif path == "/authorize" and (asked.get("client_id"), asked.get("response_type")) == (
            CLIENT,
            "code",
        ):
            links = ""
            for name in PEOPLE:
                code = secrets.token_urlsafe()
                self.server.codes[code] = (name, asked)
                back = urlencode({"code": code, "state": asked["state"]})
                links += f'<p><a id="{name}" href="{asked["redirect_uri"]}?{back}">{name}</a>'
            self._answer(200, links.replace("&", "&amp;").encode(), {"content-type": "text/html"})
        elif path == "/logout":
            self.server.ended.append(asked)
            self._answer(302, b"", {"location": asked["post_logout_redirect_uri"]})
        else:
            self._json({"error": "invalid_request"}, 400)

    def do_POST(self) -> None:
        _, asked = self._asked(self.rfile.read(int(self.headers["content-length"])).decode())
        name, begun = self.server.codes.pop(asked.get("code"), (None, {}))
        known = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if self.headers.get("authorization") != f"Basic {known}":
            self._json({"error": "invalid_client"}, 401)
        elif (
            name is None
            or asked.get("redirect_uri") != begun["redirect_uri"]
            or not proved(begun, asked)
        ):
            self._json({"error": "invalid_grant"}, 400)
        else:
            now = int(time.time())
            claims = {"iss": f"http://127.0.0.1:{self.server.server_port}", "aud": CLIENT, "iat": now,
                    "exp": now + 600, "nonce": begun["nonce"], **PEOPLE[name]}  # fmt: skip
            key = self.server.wrong_key or self.server.key
            token = jwt.encode({"alg": "RS256", "kid": self.server.key.kid}, claims, key)
            self._json(
                {"access_token": secrets.token_hex(), "token_type": "Bearer", "id_token": token}
            )

    def _asked(self, query: str) -> tuple[str, dict[str, str]]:
        return urlsplit(self.path).path, {key: values[0] for key, values in parse_qs(query).items()}

    def _json(self, body: object, status: int = 200) -> None:
        self._answer(status, json.dumps(body).encode(), {"content-type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def proved(begun: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether who asks for the token is who began, where PKCE was used (RFC 7636)."""
    if "code_challenge" not in begun:
        return True
    digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == begun["code_challenge"]


@contextmanager
def provider() -> Iterator[ThreadingHTTPServer]:
    """A running provider: `server_port`, `ended` (its logouts), `wrong_key` to sign with another's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ProviderHandler)
    server.key, server.wrong_key = RSAKey.generate_key(2048, auto_kid=True), None
    server.codes, server.ended = {}, []
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
