"""Requests to an application in this process, as a program or a browser on this machine would send
them."""

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp

HOST = "127.0.0.1:8000"


def asked(app: ASGIApp, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer of `app`, which believes that it listens on `HOST`."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())
