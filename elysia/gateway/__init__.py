"""The HTTP gateway: OpenAI's endpoints in front of any engine, with keys, limits, queues and metrics.

`build_app` makes the ASGI application of loaded models and voices, `serve` runs it.
"""

from elysia.gateway.keys import load_keys
from elysia.gateway.server import GatewaySettings, bind_socket, build_app, serve

__all__ = ["GatewaySettings", "bind_socket", "build_app", "load_keys", "serve"]
