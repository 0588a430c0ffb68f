#!/usr/bin/env bash
# Guess: the client's messages.create takes temperature, top_p and top_k, which the API's requests
#   have had from the start; a server behind base_url gets them.
# Seen: each of the three is a TypeError before any request. In extra_body they are sent.
#   So a program that samples at a temperature fails with this client, whatever the server can do.
# Version: anthropic 2.14.0 from PyPI.
# Output seen:
#   temperature: TypeError, Messages.create() got an unexpected keyword argument 'temperature'
#   top_p: TypeError, Messages.create() got an unexpected keyword argument 'top_p'
#   top_k: TypeError, Messages.create() got an unexpected keyword argument 'top_k'
#   extra_body: the server received temperature 0.5
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check anthropic==2.14.0
venv/bin/python - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anthropic

received = []
ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
    "content": [{"type": "text", "text": "yes"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(
    api_key="any", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0
)
ask = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
for name, value in {"temperature": 0.5, "top_p": 0.9, "top_k": 3}.items():
    try:
        client.messages.create(**ask, **{name: value})
        raise SystemExit(f"{name} is taken now")
    except TypeError as error:
        print(f"{name}: TypeError, {error}")
        assert f"'{name}'" in str(error)
assert received == []
client.messages.create(**ask, extra_body={"temperature": 0.5})
assert received[0]["temperature"] == 0.5, received
print("extra_body: the server received temperature 0.5")
PYTHON
