"""`scd bench pareto` measures pairs of its own and leaves none behind; `scd plot` draws what it wrote."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import daemons

REGIMES = ("prefill_in_path", "handoff")
PARTS = ("queue_ms", "prefill_ms", "encode_ms", "wire_ms", "rebuild_ms", "suffix_ms", "first_step_ms", "orchestration_ms")


def descendants(pid):
    """Ids of the living processes whose parent is pid."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class JudgementTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="scd-e2e-judgement-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.model = daemons.tiny_model(cls.folder)
        cls.pair = ("--producer", cls.model, "--consumer", cls.model)
        text = cls.folder / "text.txt"
        text.write_text("".join(f"Line {i} tells of town {i * i}.\n" for i in range(2000)), encoding="utf-8")
        cls.text, cls.artifact = text, cls.folder / "rd"
        daemons.run("scd", "calibrate", "--codec", "rd", "--ratios", "3,6", *cls.pair, "--text", text, "--tokens", "2048",
                    "--window", "256", "--out", cls.artifact)  # fmt: skip

    def pareto(self, *options, check=True):
        return daemons.run("scd", "bench", "pareto", *self.pair, *options, check=check,
                           env={**os.environ, "TMPDIR": str(self.temporary())})  # fmt: skip

    def temporary(self):
        folder = self.folder / self.id()
        folder.mkdir(exist_ok=True)
        return folder

    def questions(self):
        file = self.folder / "questions.jsonl"
        rows = [{"context": f"The tower of town {i} is {i} metres high. " * 8, "question": f"How high, {i}?",
                 "answers": [f"{i} metres"]} for i in range(3)]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    def test_pareto_measures_the_grid_and_plot_draws_it_with_the_quality(self):
        quality, out, table = self.folder / "eval.json", self.folder / "pareto.json", self.folder / "pareto.csv"
        daemons.run("scd", "eval", *self.pair, "--artifact", self.artifact, "--tasks", self.questions(), "--codecs",
                    "oracle,raw,rd,rd@1", "--max-tokens", "4", "--json", quality)  # fmt: skip
        judged = json.loads(quality.read_text())["rows"]
        self.assertTrue(all("f1_loss" in row and "f1_loss_low" in row for row in judged))
        done = self.pareto("--artifacts", self.artifact, "--text", self.text, "--codecs", "int4,rd", "--bandwidths", "0.1,0",
                           "--prompt-tokens", "128,256,4096", "--repeats", "2", "--quality", quality, "--json", out, "--csv",
                           table)  # fmt: skip
        self.assertIn("4096 tokens are left out", done.stderr)
        rows = json.loads(out.read_text())["rows"]
        codecs = [("oracle", 0), ("raw", 0), ("int4", 0), ("rd", 0), ("rd", 1)]
        self.assertEqual([(row["bandwidth_gbps"], row["prompt_tokens"], row["codec"], row["level"], row["regime"]) for row in rows],
                         [(gbps, tokens, *codec, regime) for gbps in (0.1, 0) for tokens in (128, 256) for codec in codecs
                          for regime in REGIMES])  # fmt: skip
        for row in rows:
            self.assertEqual(row["runs"], 2)
            self.assertGreater(row["ttft_ms"], 0)
            self.assertLessEqual(row["ttft_min_ms"], row["ttft_ms"])
            self.assertGreaterEqual(row["ttft_max_ms"], row["ttft_ms"])
            self.assertTrue(all(row[part] >= 0 for part in PARTS))
            self.assertEqual(row["wire_bytes"] == 0, row["codec"] == "oracle")
            self.assertEqual(row["f1"] is None, row["codec"] == "int4", "eval did not judge int4")
            if row["codec"] == "raw":
                self.assertEqual((row["wire_ratio_to_raw"], row["ttft_ratio_to_raw"]), (1, 1))
            if row["codec"] == "rd":
                self.assertGreater(row["wire_ratio_to_raw"], 1)
            if row["regime"] == "handoff" and row["codec"] != "oracle":
                self.assertEqual((row["prefill_ms"], row["encode_ms"]), (0, 0), "the codes are stored")
        fine, coarse = (next(row for row in rows if (row["codec"], row["level"]) == ("rd", level)) for level in (0, 1))
        self.assertGreater(fine["wire_bytes"], coarse["wire_bytes"])
        with open(table, newline="", encoding="utf-8") as stream:
            written = list(csv.DictReader(stream))
        self.assertEqual([row["regime"] for row in written], [row["regime"] for row in rows])
        self.assertEqual(list(self.temporary().iterdir()), [])
        self.draws(quality, out)

    def draws(self, quality, pareto):
        figures = self.folder / "figures"
        done = daemons.run("scd", "plot", quality, pareto, "--out", figures, check=False)
        if "gnuplot is not installed" in done.stderr:
            self.skipTest(done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        names = {file.name for file in figures.iterdir()}
        expected = {f"{name}.{kind}" for name in ("quality_questions", "tradeoff_questions_handoff", "ttft_handoff",
                    "tradeoff_questions_prefill_in_path", "ttft_prefill_in_path") for kind in ("svg", "png")}  # fmt: skip
        self.assertEqual(names, expected | {"report.html"})
        page = (figures / "report.html").read_text(encoding="utf-8")
        self.assertEqual(page.count("<svg"), 5)
        self.assertEqual(page.count("<tr>"), 2 + 4 + 40, "a row for each row of both files, and two headings")

    def serve(self, *options, check=True):
        return daemons.run("scd", "bench", "serve", *options, "--output-tokens", "6", check=check,
                           env={**os.environ, "TMPDIR": str(self.temporary())})  # fmt: skip

    def test_serve_compares_its_own_servers_under_each_load(self):
        out = self.folder / "load.json"
        done = self.serve(*self.pair, "--artifacts", self.artifact, "--text", self.text, "--bandwidth", "1", "--requests", "8",
                          "--rounds", "2", "--prompt-tokens", "200", "--prompt-spread", "0.2", "--shared-share", "0.5",
                          "--shared-tokens", "128", "--rates", "40,inf", "--concurrency", "3", "--slo-ttft-ms", "60000",
                          "--slo-itl-ms", "0.000001", "--json", out)  # fmt: skip
        rows = json.loads(out.read_text())["rows"]
        self.assertEqual([(row["load"], row["codec"], row["level"]) for row in rows],
                         [(load, *codec) for load in ("poisson", "burst", "closed")
                          for codec in (("oracle", 0), ("raw", 0), ("rd", 1))])  # fmt: skip
        for row in rows:
            self.assertEqual((row["requests"], row["failed"], row["fell_back"]), (16, 0, 0), done.stderr)
            self.assertEqual((row["request_rate_per_s"], row["concurrency"]),
                             {"poisson": (40, None), "burst": (None, None), "closed": (None, 3)}[row["load"]])  # fmt: skip
            for time_of in ("ttft", "itl", "e2e"):
                self.assertLessEqual(0, row[f"{time_of}_p50_ms"])
                self.assertLessEqual(row[f"{time_of}_p50_ms"], row[f"{time_of}_p90_ms"])
                self.assertLessEqual(row[f"{time_of}_p90_ms"], row[f"{time_of}_p99_ms"])
            self.assertGreater(row["ttft_p50_ms"], 0)
            self.assertAlmostEqual(row["output_tokens_per_s"], 6 * row["requests_per_s"])
            self.assertEqual(row["goodput_per_s"], 0, "no answer is as fast as that")
            self.assertEqual(row["wire_bytes"] == 0, row["codec"] == "oracle")
            if row["load"] == "closed":
                self.assertGreater(row["prefix_cached_share"], 0, "half of the prompts begin alike")
        raw, coded = rows[1], rows[2]
        self.assertLess(coded["bytes_per_token"], raw["bytes_per_token"])
        self.assertEqual(list(self.temporary().iterdir()), [])
        self.assertIn("burst", done.stdout)
        self.draws_load(out)

    def draws_load(self, load):
        figures = self.folder / "load_figures"
        done = daemons.run("scd", "plot", load, "--out", figures, check=False)
        if "gnuplot is not installed" in done.stderr:
            self.skipTest(done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({file.name for file in figures.iterdir()},
                         {f"load_{kind}_text.{form}" for kind in ("open", "closed") for form in ("svg", "png")}
                         | {"report.html"})  # fmt: skip

    def test_serve_asks_a_server_that_is_there_the_questions_of_a_file(self):
        with daemons.Pair(self.model) as pair:
            out = self.folder / "asked.json"
            options = ("--server", pair.decode.address, "--dataset", self.questions(), "--requests", "5", "--concurrency", "2")
            self.serve(*options, "--json", out)
            (row,) = json.loads(out.read_text())["rows"]
            self.assertEqual((row["codec"], row["task"], row["failed"]), ("auto", "questions", 0))
            self.assertGreater(row["wire_bytes"], 0, "the server hands over")
            self.assertIsNone(row["goodput_per_s"], "no goal was named")
            wrong = self.serve(*options, "--codecs", "scd", check=False)
            self.assertIn("codec scd: FAILED_PRECONDITION", wrong.stderr)

    def test_serve_counts_what_a_full_server_refuses(self):
        out = self.folder / "refused.json"
        done = self.serve(*self.pair, "--set-decode", "limits.max_running=1", "--set-decode", "limits.max_waiting=1",
                          "--codecs", "raw", "--requests", "12", "--rates", "inf", "--slo-e2e-ms", "60000", "--json", out)  # fmt: skip
        for row in json.loads(out.read_text())["rows"]:
            self.assertGreater(row["failed"], 0)
            self.assertLess(row["failed"], 12)
            self.assertAlmostEqual(row["goodput_share"], 1 - row["failed"] / 12)
            self.assertAlmostEqual(row["goodput_per_s"], row["requests_per_s"])
        self.assertIn("requests failed, the first with RESOURCE_EXHAUSTED", done.stderr)

    def test_serve_refuses_options_that_do_not_go_together(self):
        some = ("--concurrency", "1")
        for options, said in ((("--requests", "1"), "--rates 1,2,4"),
                              ((*some, "--producer", self.model), "--producer and --consumer go together"),
                              ((*some, "--text", self.text), "--text needs the models' tokenizer"),
                              ((*some, "--shared-share", "0.5"), "--shared-share and --shared-tokens go together"),
                              ((*some, *self.pair, "--prompt-tokens", "4000"), "exceed the model's context of 2048"),
                              ((*some, "--server", "127.0.0.1:1"), "decode_server")):  # fmt: skip
            done = self.serve(*options, check=False)
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(said, done.stderr, options)
        self.assertIn("no rate above 0", self.serve("--rates", "0", check=False).stderr)

    def test_plot_without_gnuplot_says_what_to_install(self):
        file = self.folder / "one.json"
        row = {"codec": "raw", "level": 0, "task": "t", "f1": 0.5, "bytes_per_token": 10}
        file.write_text(json.dumps({"rows": [row]}), encoding="utf-8")
        done = daemons.run("scd", "plot", file, "--out", self.folder / "none", check=False, env={"PATH": str(self.folder)})
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get install gnuplot-nox", done.stderr)

    def test_wrong_requests_are_refused_before_and_after_the_servers_start(self):
        for options, said in ((("--codecs", "rd"), "codec 'rd' needs --artifacts"),
                              (("--codecs", "int3"), "codec 'int3': expected one of oracle, raw"),
                              (("--artifacts", self.artifact, "--codecs", "rd@2"), "expected a level from 0 to 1"),
                              (("--prompt-tokens", "100000"), "the models take at most 2047 tokens"),
                              (("--text", self.folder / "none"), "none: cannot be read"),
                              (("--set-prefill", "link.bandwith_gbps=1"), "prefill_server ended before it listened"),
                              (("--set-decode", "prefill.endpoints=[127.0.0.1:1]", "--prompt-tokens", "64"), "codec raw, 64 tokens: "),
                              (("--set-decode", "prefill.endpoints=[127.0.0.1:1]", "--set-decode", "fallback.local_prefill=true",
                                "--prompt-tokens", "64"), "fell back"),
                              (("--prompt-tokens", "64", "--set-decode", "codec.suffix_tokens=64"),
                               "nothing was handed over")):  # fmt: skip
            done = self.pareto("--bandwidths", "0", "--repeats", "1", *options, check=False)
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(said, done.stderr, options)
            self.assertEqual(list(self.temporary().iterdir()), [], options)

    def start_long_run(self, *command):
        command = [str(daemons.BINARIES / "scd"), "bench", *map(str, (*command, *self.pair))]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "TMPDIR": str(self.temporary())})  # fmt: skip
        deadline = time.monotonic() + daemons.START_SECONDS
        while len(servers := descendants(process.pid)) < 2:
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        return process, servers

    def test_no_signal_leaves_a_server_behind(self):
        pareto = ("pareto", "--bandwidths", "0.1", "--prompt-tokens", "2000", "--repeats", "1000")
        serve = ("serve", "--rates", "1", "--requests", "1000")
        for command, number, status in ((serve, signal.SIGINT, 1), (pareto, signal.SIGINT, 1), (pareto, signal.SIGTERM, 1),
                                        (pareto, signal.SIGKILL, -signal.SIGKILL)):  # fmt: skip
            process, servers = self.start_long_run(*command)
            process.send_signal(number)
            _, said = process.communicate(timeout=daemons.STOP_SECONDS)
            self.assertEqual(process.returncode, status, said)
            deadline = time.monotonic() + daemons.STOP_SECONDS
            while number == signal.SIGKILL and any(map(alive, servers)):  # the kernel has told them to end
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            self.assertFalse(any(map(alive, servers)), number)
            if number != signal.SIGKILL:
                self.assertIn("interrupted", said)
                self.assertEqual(list(self.temporary().iterdir()), [])


if __name__ == "__main__":
    unittest.main()
