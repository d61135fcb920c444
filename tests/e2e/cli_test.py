"""Every command of `scd` does on a tiny model what its help says."""

import array
import json
import pathlib
import re
import tempfile
import unittest

import daemons

COMMANDS = ["complete", "calibrate", "eval", "tokenize", "logits", "inspect", "make-model"]
BENCHES = ["engine", "pair", "transfer"]
REPORT_KEYS = {"machine", "commit", "command", "rows"}


def listed_commands(*arguments):
    """The commands that a --help lists, without their descriptions."""
    lines = daemons.run("scd", *arguments, "--help").stdout.split("Subcommands:")[1].splitlines()
    return [match.group(1) for line in lines if (match := re.match(r"  ([a-z][a-z-]*) ", line))]


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="scd-e2e-cli-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.model = daemons.tiny_model(cls.folder)

    def report(self, *arguments):
        file = self.folder / "report.json"
        daemons.run("scd", *arguments, "--json", file)
        report = json.loads(file.read_text(encoding="utf-8"))
        self.assertLessEqual(REPORT_KEYS, report.keys())
        return report["rows"]

    def test_every_command_is_there_and_has_help(self):
        self.assertEqual(sorted(listed_commands()), sorted([*COMMANDS, "bench"]))
        self.assertEqual(sorted(listed_commands("bench")), sorted(BENCHES))
        for command in [*([name] for name in COMMANDS), *(["bench", name] for name in BENCHES)]:
            self.assertGreater(len(daemons.run("scd", *command, "--help").stdout.splitlines()), 5, command)

    def test_tokenize_goes_there_and_back(self):
        text = "Zwölf Boxkämpfer jagen Viktor 🙂\n"
        ids = daemons.run("scd", "tokenize", "--model", self.model, input=text).stdout
        self.assertEqual(len(ids.splitlines()), 1)
        self.assertEqual(daemons.run("scd", "tokenize", "--model", self.model, "--decode", input=ids).stdout, text)

    def test_logits_of_every_position_and_greedy_ids(self):
        file = self.folder / "logits.f32"
        options = ("--model", self.model, "--precision", "fp32")
        daemons.run("scd", "logits", *options, "--ids", "5,6,7", "--out", file)
        logits = array.array("f", file.read_bytes())
        vocabulary = json.loads((self.model / "config.json").read_text())["vocab_size"]
        self.assertEqual(len(logits), 3 * vocabulary)
        last = list(logits[2 * vocabulary :])
        greedy = daemons.run("scd", "logits", *options, "--ids", "5,6,7", "--greedy", "2").stdout.strip().split(",")
        self.assertEqual(int(greedy[0]), last.index(max(last)))
        self.assertEqual(len(greedy), 2)

    def test_inspect_names_the_architecture_and_the_fingerprint(self):
        printed = daemons.run("scd", "inspect", self.model).stdout
        self.assertIn("llama", printed.lower())
        self.assertRegex(printed, r"\b[0-9a-f]{64}\b")

    def test_eval_reports_every_codec_against_the_oracle(self):
        questions = self.folder / "questions.jsonl"
        rows = [{"context": f"The tower of town {i} is {i} metres high. " * 8, "question": "How high?", "answers": [f"{i} metres"]} for i in range(2)]
        questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        rows = self.report("eval", "--producer", self.model, "--consumer", self.model, "--tasks", questions, "--codecs",
                           "oracle,raw", "--max-tokens", "8")  # fmt: skip
        self.assertEqual({row["codec"] for row in rows}, {"oracle", "raw"})
        for row in rows:
            self.assertEqual(row["questions"], 2)
            self.assertEqual(row["same_answer"], 1, "one model, raw cache: the same answers")

    def test_bench_engine_prints_shares_of_the_machines_limits(self):
        rows = self.report("bench", "engine", "--model", self.model, "--prefill", "64", "--batch", "1", "--context", "32",
                           "--steps", "4", "--repetitions", "1")  # fmt: skip
        self.assertTrue(any(key.endswith("_share") for row in rows for key in row))

    def test_bench_transfer_measures_beside_ucx_perftest(self):
        (row,) = self.report("bench", "transfer", "--transports", "tcp", "--sizes", "256K", "--megabytes", "8", "--repeats",
                             "1")  # fmt: skip
        self.assertGreater(row["mib_per_s"], 0)
        self.assertGreater(row["ucx_perftest_share"], 0)


if __name__ == "__main__":
    unittest.main()
