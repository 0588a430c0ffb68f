"""Runs API clients unmodified against this server: check_clients.py --cache DIR PROGRAM SCRIPTED.

PROGRAM is gemma4-wgpu, which gets a small random model. SCRIPTED is the example scripted_server,
which answers by script.json: with thoughts, tool calls and texts that are known."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


@contextmanager
def server(command):
    """Starts a server and gives its address."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if line.startswith("listening on "):
                yield line.split()[-1]
                return
        raise SystemExit(f"{command[0]} does not listen")
    finally:
        process.terminate()
        process.wait(timeout=30)


def run(cache, name, address, environment):
    """Runs one client's checks."""
    start = time.monotonic()
    script = HERE / name
    if name.endswith(".py"):
        command = [cache / "venv" / "bin" / "python", script]
    else:
        # Modules are looked up beside the script.
        link = cache / name
        link.write_text(script.read_text())
        command = ["node", link]
    outcome = subprocess.run([*command, address], env=os.environ | environment, timeout=120)
    print(f"{name}: status {outcome.returncode}, {time.monotonic() - start:.1f} s", flush=True)
    return outcome.returncode == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("program")
    parser.add_argument("scripted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "random"
        python = arguments.cache / "venv" / "bin" / "python"
        subprocess.run([python, HERE / "make_model.py", model], check=True)
        serve = [arguments.program, "serve", "--model", model, "--backend", "cpu", "--port", "0"]
        serve += ["--ctx", "65536", "--parallel", "2"]
        with server(serve) as random, server([arguments.scripted, HERE / "script.json"]) as script:
            clients = ["openai_client.py", "anthropic_client.py", "ollama_client.py"]
            clients += ["openai_client.mjs", "anthropic_client.mjs", "ai_client.mjs"]
            good = [run(arguments.cache, name, script, {"RANDOM": random}) for name in clients]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
