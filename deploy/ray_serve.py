"""Replicas of gemma4-wgpu behind Ray Serve.

    pip install "ray[serve]==2.60.0"
    GEMMA4_WGPU="gemma4-wgpu serve --model hf:OWNER/NAME --parallel 8 --ctx 32768" \
        serve run ray_serve:app

Each replica starts the program on a free port of its machine. A front passes requests on and
streams the answers. A request whose answer has not begun is sent again if its replica dies; one
that has begun ends with an error that the client sees.
"""

import asyncio
import json
import os
import shlex
import subprocess
import threading

import aiohttp
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

COMMAND = shlex.split(os.environ.get("GEMMA4_WGPU", "gemma4-wgpu serve"))
REPLICAS = int(os.environ.get("REPLICAS", "2"))
CPUS = float(os.environ.get("CPUS_PER_REPLICA", "0.5"))
GPUS = float(os.environ.get("GPUS_PER_REPLICA", "0"))
# The program has a queue of its own, whose answer to overload has the client's form.
MOST_REQUESTS = 512
ATTEMPTS = 5
# Headers of one connection alone.
HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
# Longer than the program's --drain-timeout of 15 seconds.
DRAIN_SECONDS = 20


def passed(headers):
    """Headers without those of one connection."""
    return [(name, value) for name, value in headers if name.lower() not in HOP]


@serve.deployment(
    num_replicas=REPLICAS,
    max_ongoing_requests=MOST_REQUESTS,
    graceful_shutdown_timeout_s=DRAIN_SECONDS,
    health_check_period_s=2,
    health_check_timeout_s=10,
    ray_actor_options={"num_cpus": CPUS, "num_gpus": GPUS},
)
class Engine:
    """One process of the program."""

    def __init__(self):
        command = [*COMMAND, "--host", "127.0.0.1", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = None
        for line in self.process.stderr:
            print(line, end="")
            if line.startswith("listening on "):
                self.address = line.split()[-1]
                break
        if self.address is None:
            raise RuntimeError(f"{command[0]} ended with status {self.process.wait()}")
        threading.Thread(target=self._watch, daemon=True).start()
        self.session = None

    def _watch(self):
        """Copies the log, because a full pipe would stop the program. Ends with the program, so
        that Serve sends no more requests here before the next check of health."""
        for line in self.process.stderr:
            print(line, end="", flush=True)
        os._exit(self.process.wait() or 1)

    def _open(self):
        if self.session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=5)
            connector = aiohttp.TCPConnector(limit=MOST_REQUESTS)
            self.session = aiohttp.ClientSession(timeout=limits, connector=connector)
        return self.session

    async def check_health(self):
        """Serve replaces a replica for which this raises."""
        if self.process.poll() is not None:
            raise RuntimeError("the program has ended")
        async with self._open().get(f"{self.address}/health") as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())

    async def pass_on(self, method, path, headers, body):
        """Gives the status and headers, then the pieces of the answer's body."""
        url = self.address + path
        async with self._open().request(method, url, headers=headers, data=body) as answer:
            yield {"status": answer.status, "headers": passed(answer.headers.items())}
            async for piece in answer.content.iter_any():
                yield piece

    def __del__(self):
        process = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.terminate()


def broken(path, message):
    """The last event of a stream whose replica died, in the form of the path's API."""
    if path.startswith("/api/"):
        return json.dumps({"error": message}) + "\n"
    if path.startswith("/v1/messages"):
        error = {"type": "error", "error": {"type": "api_error", "message": message}}
        return f"event: error\ndata: {json.dumps(error)}\n\n"
    error = {"error": {"message": message, "type": "server_error", "code": 500}}
    return f"data: {json.dumps(error)}\n\n"


def unavailable(message):
    """An answer that clients try again."""
    error = {"error": {"message": message, "type": "server_error", "code": 503}}
    return JSONResponse(error, status_code=503, headers={"retry-after": "2"})


@serve.deployment(
    max_ongoing_requests=4 * MOST_REQUESTS, ray_actor_options={"num_cpus": 0.1}
)
class Front:
    """Passes requests to the replicas."""

    def __init__(self, engine):
        self.engine = engine.options(stream=True)

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = passed(request.headers.items())
        reason = "no replica answers"
        for attempt in range(ATTEMPTS):
            pieces = self.engine.pass_on.remote(request.method, path, headers, body)
            try:
                first = await anext(pieces)
                return self.answer(path, first, pieces)
            except BackPressureError as error:
                return unavailable(str(error))
            # Nothing has begun: another replica may answer.
            except (RayError, aiohttp.ClientError, OSError, StopAsyncIteration) as error:
                reason = f"{type(error).__name__}: no replica answers"
                await asyncio.sleep(0.2 * (attempt + 1))
        return unavailable(reason)

    def answer(self, path, first, pieces):
        headers = dict(first["headers"])
        kind = headers.pop("Content-Type", None) or headers.pop("content-type", None)

        async def rest():
            try:
                async for piece in pieces:
                    yield piece
            except (RayError, aiohttp.ClientError, OSError):
                if "json" in (kind or "") and "ndjson" not in kind:
                    # Half a JSON text cannot be mended: the connection breaks off.
                    raise
                yield broken(path, "the replica died").encode()

        return StreamingResponse(
            rest(), status_code=first["status"], headers=headers, media_type=kind
        )


app = Front.bind(Engine.bind())
