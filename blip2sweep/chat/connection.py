"""HTTP whose timeout is that of a whole response. That of a socket is of each read, and bytes that drip never reach it."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.request


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **more: object) -> None:
        return None


class _Until(io.RawIOBase):
    """What a socket sends until its timeout, which begins now. Then reading raises TimeoutError."""

    def __init__(self, sent: io.RawIOBase, sock: socket.socket) -> None:
        self._sent, self._sock = sent, sock
        self._end = time.monotonic() + (sock.gettimeout() or float("inf"))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left if left < float("inf") else None)
        found: int | None = self._sent.readinto(buffer)
        return found

    def close(self) -> None:
        self._sent.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp = io.BufferedReader(_Until(self.fp.detach(), sock))


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _Https(http.client.HTTPSConnection):
    response_class = _Response


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Https, req, context=self._own)

    def __init__(self) -> None:
        self._own = ssl.create_default_context()
        super().__init__(context=self._own)


def opener() -> urllib.request.OpenerDirector:
    """Opens requests. A redirect is an error."""
    return urllib.request.build_opener(_NoRedirect, _HttpHandler, _HttpsHandler())
