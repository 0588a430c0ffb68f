"""Tests of peer_bench.py on recorded outputs, and of the random files on the program itself."""

import io
import json
import os
import stat
import tarfile
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path

import peer_bench
import programs
import report
import source

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "target/debug/gemma4-wgpu"


def recorded(name):
    return (HERE / "recorded" / name).read_text()


def fake_program(folder, name, output):
    """A program that prints a recorded output and keeps its arguments."""
    path = folder / name
    lines = ["#!/bin/sh", f"echo \"$@\" >>'{path}.arguments'", f"cat '{HERE}/recorded/{output}'"]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Rates(unittest.TestCase):
    def test_llama_bench(self):
        rates = programs.llama_bench_rates(recorded("llama_bench.json"))
        self.assertEqual(list(rates), ["pp16", "tg4", "pp16 @ d32", "tg4 @ d32"])
        self.assertTrue(all(len(samples) == 2 for samples in rates.values()))
        rows = json.loads(recorded("llama_bench.json"))
        self.assertAlmostEqual(sum(rates["tg4"]) / 2, rows[1]["avg_ts"], places=2)

    def test_llama_batched_bench(self):
        rates = programs.batched_bench_rates(recorded("llama_batched_bench.jsonl"))
        self.assertEqual(list(rates), ["tg64 x 1", "tg64 x 2"])
        self.assertTrue(all(len(samples) == 2 for samples in rates.values()))

    def test_our_bench(self):
        rates = programs.our_rates(recorded("gemma4_wgpu.json"))
        self.assertEqual(list(rates), ["pp16", "tg4", "pp16 @ d32", "tg4 @ d32"])
        self.assertTrue(all(len(samples) == 2 for samples in rates.values()))

    def test_a_failure_is_the_last_line(self):
        with self.assertRaisesRegex(programs.Failed, "^sh: two$"):
            programs.call(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])


class Measurement(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def test_both_programs_take_turns(self):
        fake_program(self.folder, "llama-bench", "llama_bench.json")
        fake_program(self.folder, "llama-batched-bench", "llama_batched_bench.jsonl")
        ours = programs.Ours(fake_program(self.folder, "gemma4-wgpu", "gemma4_wgpu.json"))
        both = [programs.LlamaCpp(self.folder, on_gpu=True), ours]
        plan = programs.Plan((16,), (4,), (0, 32), (1, 2), 2)
        results = {program.name: {} for program in both}
        self.assertEqual(peer_bench.measure(both, "m.gguf", plan, 2, results), [])
        theirs = ["pp16", "tg4", "pp16 @ d32", "tg4 @ d32", "tg64 x 1", "tg64 x 2"]
        self.assertEqual(list(results["llama.cpp"]), theirs)
        # Two rounds of two repetitions.
        self.assertTrue(all(len(samples) == 4 for samples in results["llama.cpp"].values()))
        arguments = (self.folder / "llama-bench.arguments").read_text().splitlines()
        self.assertEqual(arguments, ["-m m.gguf -ngl 99 -p 16 -n 4 -d 0,32 -r 2 -fa 1 -o json"] * 2)
        batched = (self.folder / "llama-batched-bench.arguments").read_text()
        self.assertIn("-npp 16 -ntg 64 -npl 1,2,1,2 -c 2048 ", batched)
        arguments = (self.folder / "gemma4-wgpu.arguments").read_text().splitlines()
        common = "bench --quiet --json --model m.gguf"
        self.assertEqual(arguments[0], f"{common} -p 16 -n 4 -d 0,32 -r 2")
        self.assertEqual(arguments[2], f"{common} -p 0 -n 64 -d 15 -r 2 --parallel 1,2")

    def test_a_program_that_fails_is_named(self):
        fake_program(self.folder, "llama-bench", "llama_bench.json")
        both = [programs.LlamaCpp(self.folder, on_gpu=True), programs.Ours("false")]
        results = {program.name: {} for program in both}
        plan = programs.Plan((16,), (), (0,), (), 1)
        failures = peer_bench.measure(both, "m.gguf", plan, 1, results)
        self.assertEqual(failures, ["false: exit code 1"])
        self.assertTrue(results["llama.cpp"] and not results["gemma4-wgpu"])

    def test_the_archive_has_what_the_benchmarks_need(self):
        package, archive = self.folder / "package.tar.gz", self.folder / "llama.tar.xz"
        prefix = "llama_cpp_python-1/vendor/llama.cpp/"
        kept = ["CMakeLists.txt", f"ggml/src/ggml-cuda/{'a' * 90}.cu", "tools/llama-bench/main.cpp"]
        left_out = ["ggml/src/ggml-vulkan/a.cpp", "models/a.gguf", "tools/server/a.cpp"]
        with tarfile.open(package, "w:gz") as file:
            for name in kept + left_out:
                member = tarfile.TarInfo(prefix + name)
                member.size = 3
                file.addfile(member, io.BytesIO(b"abc"))
        source.pack(package, archive)
        with tarfile.open(archive) as file:
            self.assertEqual(sorted(file.getnames()), sorted([*kept, "tools/CMakeLists.txt"]))

    def test_our_program_runs_the_random_files(self):
        one_sequence = ["pp5", "tg2", "pp5 @ d9", "tg2 @ d9"]
        for shape, sequences in (("tiny", (1, 2)), ("tiny-effective", ())):
            model = peer_bench.model_file(self.folder, shape)
            plan = programs.Plan((5,), (2,), (0, 9), sequences, 1)
            results = {"gemma4-wgpu": {}}
            ours = programs.Ours(PROGRAM, ("--backend", "cpu"))
            self.assertEqual(peer_bench.measure([ours], model, plan, 1, results), [])
            expected = one_sequence + [f"tg64 x {count}" for count in sequences]
            self.assertEqual(list(results["gemma4-wgpu"]), expected)


def example_results(machine="a card"):
    rates = {
        "llama.cpp": {"pp16": [90.0, 100.0, 2000.0], "tg64 x 8": [50.0]},
        "gemma4-wgpu": {"pp16": [150.0, 1.0, 151.0]},
    }
    facts = {"machine": machine, "gemma4-wgpu": "gemma4-wgpu 1", "llama.cpp": "llama.cpp v1"}
    return {"facts": facts, "shapes": {"31b": rates}, "notes": ["31b: no memory"]}


class Table(unittest.TestCase):
    def test_medians_and_ratios(self):
        lines = report.table(example_results()).splitlines()
        self.assertEqual(lines[0], "a card.")
        self.assertEqual(lines[2], "Tokens a second, medians of 1 or 3.")
        self.assertIn("| 31b | pp16 | 100.0 | 150.0 | 1.50 |", lines)
        self.assertIn("| 31b | tg64 x 8 | 50.00 | – | – |", lines)
        self.assertEqual(lines[-1], "31b: no memory")

    def test_results_of_several_runs(self):
        other = example_results()
        other["shapes"] = {"e4b": {"llama.cpp": {"pp16": [1234.5]}, "gemma4-wgpu": {}}}
        lines = report.table(report.merged([example_results(), other])).splitlines()
        self.assertIn("| e4b | pp16 | 1234 | – | – |", lines)
        self.assertEqual(sum("no memory" in line for line in lines), 1)
        with self.assertRaises(SystemExit):
            report.merged([example_results(), example_results("another card")])

    def test_stored_results(self):
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "results.json")
            Path(path).write_text(json.dumps(example_results()))
            with redirect_stdout(io.StringIO()) as printed:
                options = peer_bench.parser().parse_args(["table", path])
                options.act(options)
        self.assertIn("| 31b | pp16 |", printed.getvalue())


if __name__ == "__main__":
    unittest.main()
