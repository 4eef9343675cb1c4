"""A local HTTP server that breaks connections, changes files and knows ranges, for the tests of downloads."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What the server offers and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    """For each of the next answers, the bytes after which the connection is broken."""
    ranges: bool = True
    """Whether the server knows ranges."""
    types: dict[str, str] = field(default_factory=dict)
    """What the server calls the content of a file; nothing by default."""
    parts: list[dict[str, str | None]] = field(default_factory=list)
    """For each of the next answers to a range, headers in place of its own; None leaves one out."""
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the next answers, which bring nothing."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of every request."""
    address: str = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def serving() -> Iterator[Site]:
    """A server on a free port of this machine."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.asked.append((self.path, wanted))
            if site.refusals:
                status, extra = site.refusals.pop(0)
                self.answer(status, {"Content-Length": "0", **extra})
                return
            content = site.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            tag, start = f'"{hash(content)}"', 0
            if wanted and site.ranges and self.headers.get("If-Range") == tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
            headers: dict[str, str | None] = {"ETag": tag, "Content-Type": site.types.get(self.path.lstrip("/"))}
            headers["Content-Length"] = str(len(content) - start)
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                headers |= site.parts.pop(0) if site.parts else {}
            # decided before the client hears anything: what a test asks for afterwards is for the next answer
            cut = site.cut_after.pop(0) if site.cut_after else None
            self.answer(206 if start else 200, headers)
            body = content[start:]
            if cut is not None:
                body = body[:cut]
                self.close_connection = True
            self.wfile.write(body)

        def answer(self, status: int, headers: Mapping[str, str | None]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
