#!/usr/bin/env python3
"""Loads `gemma4-wgpu serve` with many small requests and faulty clients.

It starts the server with the embedded model on the CPU.
Clients send chats of 1 to 8 tokens over persistent connections.
Some cancel, read slowly, pause, or close their sending side.
Every whole answer must be that of the same request alone.
At the end all slots are free, and the server's memory has not grown.

    cargo build --release --features server
    tools/serve_load.py --program target/release/gemma4-wgpu
"""

import argparse
import asyncio
import collections
import json
import random
import re
import subprocess
import sys
import time

PROMPTS = [f"Story {number} of the sea" + " and the wind" * (number % 5) for number in range(16)]
MOST_TOKENS = 8
# Most growth of the server's memory between the middle and the end, in bytes.
GROWTH = 32 << 20
KINDS = {"whole": 70, "stream": 12, "cancel": 8, "slow": 3, "half-closed": 4, "pause": 3}


def start(program, port):
    """The server's process, and its port."""
    command = [program, "serve", "--backend", "cpu", "--port", str(port), "--parallel", "8"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found:
            return server, int(found[1])
    sys.exit("the server has ended")


def body(prompt, tokens, stream):
    return json.dumps({
        "messages": [{"role": "user", "content": PROMPTS[prompt]}],
        "temperature": 0, "max_tokens": tokens, "stream": stream,
    }).encode()


def head(method, path, length=0):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def response(reader, slow=False):
    """Status and body of a response."""
    status = int((await reader.readline()).split()[1])
    length, chunked = 0, False
    while (line := (await reader.readline()).strip().lower()):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        chunked |= line == b"transfer-encoding: chunked"
    if not chunked:
        return status, await reader.readexactly(length)
    parts = []
    while size := int(await reader.readline(), 16):
        if slow:
            await asyncio.sleep(0.05)
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return status, b"".join(parts)


def text_of(status, data, stream):
    if status != 200:
        raise ValueError(f"status {status}: {data[:200]!r}")
    if not stream:
        return json.loads(data)["choices"][0]["message"]["content"]
    events = data.decode().strip().split("\n\n")
    if events.pop() != "data: [DONE]":
        raise ValueError("a stream without an end")
    events = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
    chunks = [json.loads(event) for event in events]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


class Client:
    """A connection that is opened again when it is needed."""

    def __init__(self, port):
        self.port, self.streams = port, None

    async def open(self):
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self.streams

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    async def send(self, kind, prompt, tokens, pace):
        """The answer's text, or None where the client gave up."""
        stream = kind in ("stream", "slow") or (kind == "cancel" and pace.random() < 0.5)
        data = body(prompt, tokens, stream)
        reader, writer = await self.open()
        writer.write(head("POST", "/v1/chat/completions", len(data)))
        if kind == "pause":
            await writer.drain()
            await asyncio.sleep(pace.uniform(0, 0.2))
        writer.write(data)
        await writer.drain()
        if kind == "cancel":
            await asyncio.sleep(pace.expovariate(20))
            self.close()
            return None
        if kind == "half-closed":
            writer.write_eof()
        try:
            status, data = await response(reader, kind == "slow")
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            self.close()
            if kind == "half-closed":
                return None
            raise
        if kind == "half-closed":
            self.close()
        return text_of(status, data, stream)

    async def get(self, path):
        reader, writer = await self.open()
        writer.write(head("GET", path))
        return json.loads((await response(reader))[1])


def memory(server):
    """Bytes of memory in use by the server."""
    with open(f"/proc/{server.pid}/status", encoding="ascii") as status:
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


async def load(server, port, arguments):
    expected = {}
    alone = Client(port)
    for prompt in range(len(PROMPTS)):
        for tokens in range(1, MOST_TOKENS + 1):
            expected[prompt, tokens] = await alone.send("whole", prompt, tokens, random)
    counts, times, sizes, wrong = collections.Counter(), [], [], []
    left = iter(range(arguments.requests))

    async def work(number):
        pace, client = random.Random(arguments.seed * 1000 + number), Client(port)
        for request in left:
            kind = pace.choices(list(KINDS), list(KINDS.values()))[0]
            prompt, tokens = pace.randrange(len(PROMPTS)), pace.randint(1, MOST_TOKENS)
            begin = time.monotonic()
            try:
                text = await client.send(kind, prompt, tokens, pace)
            except (ValueError, OSError, EOFError, KeyError) as error:
                wrong.append(f"{kind}: {error!r}")
                client.close()
                continue
            counts[kind if text is not None else f"{kind}, given up"] += 1
            if text is not None and text != expected[prompt, tokens]:
                wrong.append(f"{kind}: {text!r} is not {expected[prompt, tokens]!r}")
            if kind == "whole":
                times.append(time.monotonic() - begin)
            if request % max(1, arguments.requests // 20) == 0:
                sizes.append(memory(server))
        client.close()

    begin = time.monotonic()
    await asyncio.gather(*(work(number) for number in range(arguments.connections)))
    took = time.monotonic() - begin
    for _ in range(100):
        slots = await alone.get("/slots")
        if not any(slot["is_processing"] for slot in slots):
            break
        await asyncio.sleep(0.1)
    else:
        wrong.append("slots are still busy")
    alone.close()
    times.sort()
    middle, end = sizes[len(sizes) // 2], memory(server)
    if end - middle > GROWTH:
        wrong.append(f"memory grew from {middle >> 20} to {end >> 20} MiB")
    print(f"{arguments.requests} requests over {arguments.connections} connections, {took:.0f} s")
    print("  " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    print(f"  memory: {sizes[0] >> 20} MiB, {middle >> 20} in the middle, {end >> 20} at the end")
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"  whole answers: p50 {p50:.2f} s, p99 {p99:.2f} s")
    print(f"  wrong: {len(wrong)}")
    for line in wrong[:10]:
        print("    " + line)
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/gemma4-wgpu")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    server, port = start(arguments.program, 0)
    try:
        good = asyncio.run(load(server, port, arguments))
        good &= server.poll() is None
    finally:
        server.terminate()
        server.wait()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
