"""Every command of `scd` does on a tiny model what its help says."""

import array
import json
import os
import pathlib
import re
import shutil
import tempfile
import unittest

import daemons

COMMANDS = ["complete", "calibrate", "eval", "tokenize", "logits", "inspect", "make-artifact", "make-model", "plot"]
BENCHES = ["adapters", "codec", "engine", "kernels", "pair", "pareto", "scale", "serve", "transfer"]
REPORT_KEYS = {"machine", "commit", "command", "rows"}
ROW_KEYS = ["codec", "level", "task", "questions", "f1", "exact_match", "same_answer", "kl_question", "kl_answer", "kl_p99",
            "perplexity", "bytes_per_token", "ratio_to_bf16"]  # fmt: skip


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
        cls.text = cls.folder / "lines.txt"
        cls.text.write_text("".join(f"Line {i} tells of town {i * i}.\n" for i in range(2000)), encoding="utf-8")
        cls.model = daemons.tiny_model(cls.folder)

    def own_pair(self):
        return ("--producer", self.model, "--consumer", self.model, "--text", self.text, "--tokens", "2048", "--window", "256")

    def assert_calibrate_refuses(self, said, codec, *arguments):
        refused = daemons.run("scd", "calibrate", "--codec", codec, *arguments, check=False)
        self.assertIn(said, refused.stderr)
        self.assertNotIn("loading", refused.stderr)

    def report(self, *arguments, **options):
        file = self.folder / "report.json"
        daemons.run("scd", *arguments, "--json", file, **options)
        report = json.loads(file.read_text(encoding="utf-8"))
        self.assertLessEqual(REPORT_KEYS, report.keys())
        for row in report["rows"]:
            self.assertEqual(list(row)[: len(ROW_KEYS)], ROW_KEYS)
        return report["rows"]

    def test_every_command_is_there_and_has_help(self):
        self.assertEqual(sorted(listed_commands()), sorted([*COMMANDS, "bench"]))
        self.assertEqual(sorted(listed_commands("bench")), sorted(BENCHES))
        for command in [*([name] for name in COMMANDS), *(["bench", name] for name in BENCHES)]:
            self.assertGreater(len(daemons.run("scd", *command, "--help").stdout.splitlines()), 5, command)

    def test_a_made_up_artifact_is_one_of_the_pair(self):
        made_up = self.folder / "made-up"
        pair = ("--producer", self.model, "--consumer", self.model)
        said = daemons.run("scd", "make-artifact", *pair, "--ratios", "16,64", "--out", made_up).stdout
        self.assertIn("not calibrated", said)
        inspected = daemons.run("scd", "inspect", made_up).stdout
        self.assertIn("codec artifact rd", inspected)
        self.assertIn("not calibrated", inspected)
        refused = daemons.run("scd", "make-artifact", *pair, "--ratios", "64,16", "--out", self.folder / "other", check=False)
        self.assertIn("that rise", refused.stderr)

    def test_tokenize_goes_there_and_back(self):
        text = "Zwölf Boxkämpfer jagen Viktor 🙂\n"
        ids = daemons.run("scd", "tokenize", "--model", self.model, input=text).stdout
        self.assertEqual(len(ids.splitlines()), 1)
        self.assertEqual(daemons.run("scd", "tokenize", "--model", self.model, "--decode", input=ids).stdout, text)

    def test_ids_outside_the_vocabulary_are_refused(self):
        for wrong in ("99999", "-1"):
            done = daemons.run("scd", "tokenize", "--model", self.model, "--decode", input=f"5 {wrong}\n", check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(wrong, done.stderr)
            self.assertRegex(done.stderr, r"\d+ tokens")

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

    def questions(self):
        file = self.folder / "questions.jsonl"
        rows = [{"context": f"The tower of town {i // 2} is {i // 2} metres high. " * 8, "question": f"How high, {i}?",
                 "answers": [f"{i} metres"]} for i in range(4)]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    def test_eval_reports_every_codec_against_the_oracle(self):
        prose = self.folder / "prose.txt"
        prose.write_text("It was a dark and stormy night. " * 60, encoding="utf-8")
        rows = self.report("eval", "--producer", self.model, "--consumer", self.model, "--tasks", self.questions(),
                           "--prose", prose, "--codecs", "oracle", "--codecs", "raw", "--max-tokens", "8")  # fmt: skip
        self.assertEqual([(row["task"], row["codec"]) for row in rows],
                         [("questions", "oracle"), ("questions", "raw"), ("prose", "oracle"), ("prose", "raw")])  # fmt: skip
        for row in rows[:2]:
            self.assertEqual(row["questions"], 4)
            self.assertEqual(row["same_answer"], 1, "one model, raw cache: the same answers")
            self.assertIsNone(row["perplexity"])
        for row in rows[2:]:
            self.assertIsNone(row["f1"])
            self.assertGreater(row["perplexity"], 1)
            self.assertGreaterEqual(row["kl_text"], 0)

    def test_eval_gives_the_same_however_many_workers_ask(self):
        command = ("eval", "--producer", self.model, "--consumer", self.model, "--tasks", self.questions(),
                   "--codecs", "oracle,raw,int4", "--max-tokens", "8")  # fmt: skip
        one, three = self.report(*command), self.report(*command, "--workers", "3")
        for row in one + three:
            del row["encode_ms"], row["rebuild_ms"]
        self.assertEqual(one, three)

    def test_calibrate_refuses_at_once_what_it_could_not_write_or_would_ignore(self):
        common = ("--producer", self.model, "--consumer", self.model, "--text", self.text, "--tokens", "2048", "--window", "256",
                  "--patch-layers", "0")  # fmt: skip
        out = self.folder / "artifact"
        for _ in range(2):  # the same calibration into the same folder
            daemons.run("scd", "calibrate", *common, "--out", out)
        done = daemons.run("scd", "calibrate", *common, "--out", out, "--seed", "2", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^scd: ALREADY_EXISTS: .*artifact: .*seed")
        self.assertNotIn("loading", done.stderr)
        done = daemons.run("scd", "calibrate", *common, "--out", self.folder, check=False)
        self.assertRegex(done.stderr, r"^scd: ALREADY_EXISTS: .*not empty")
        done = daemons.run("scd", "calibrate", *common, "--out", out, "--add-consumer", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"--patch-layers.*--add-consumer|--add-consumer.*--patch-layers")
        for option in ("--rank-key", "--rank-value", "--rank-hidden"):
            done = daemons.run("scd", "calibrate", *common, "--out", out, option, "-2", check=False)
            self.assertIn(option, done.stderr)

    def check_levels_again(self, artifact, fitted):
        other = self.folder / "other.txt"
        other.write_text("".join(f"House {i} has {i * i} doors.\n" for i in range(2000)), encoding="utf-8")
        common = ("calibrate", "--recheck", "--producer", self.model, "--consumer", self.model, "--window", "256", "--out", artifact)
        before = {path: path.read_bytes() for path in artifact.rglob("*") if path.is_file()}
        for wrong, said in ((("--check-text", fitted), "was fitted on"), ((), "needs --check-text"),
                            (("--check-text", other, "--ratios", "6"), "--ratios is of a fit"),
                            (("--check-text", other, "--max-kl", "1e-12"), "nothing was written")):  # fmt: skip
            self.assertIn(said, daemons.run("scd", *common, *wrong, check=False).stderr)
        self.assertEqual(before, {path: path.read_bytes() for path in before}, "nothing was written")
        rows = self.report(*common, "--check-text", other)
        self.assertEqual([(row["codec"], row["level"], row["task"]) for row in rows], [("rd", 0, "check"), ("rd", 1, "check")])
        self.assertLessEqual(rows[1]["kl_answer"], rows[1]["kl_answer_upper"])
        changed = [path.relative_to(artifact).parts for path in before if path.read_bytes() != before[path]]
        self.assertEqual([(parts[0], parts[-1]) for parts in changed], [("decoders", "codec.json")], "maps stay as they are")

    def test_rd_is_calibrated_inspected_judged_and_served_at_its_levels(self):
        out = self.folder / "rd"
        rows = self.report("calibrate", "--codec", "rd", "--ratios", "6,12", "--exact-layers", "2", "--native", "none,3-3",
                           "--producer", self.model, "--consumer", self.model,
                           "--text", self.text, "--tokens", "2048", "--window", "256", "--out", out)  # fmt: skip
        searched = [row for row in rows if row["task"] == "search"]
        self.assertEqual(len({row["plan"] for row in searched}), 2)
        self.assertEqual([row["level"] for row in searched], [0, 1, 0, 1])
        rows = [row for row in rows if row["task"] == "calibration"]
        self.assertEqual([(row["codec"], row["level"]) for row in rows], [("rd", 0), ("rd", 1)])
        self.assertLess(rows[0]["gaussian_bits_per_token"], rows[0]["bits_per_token"])
        self.assertGreater(rows[0]["bytes_per_token"], rows[1]["bytes_per_token"])
        self.assertIn("checking levels", rows[0]["stages_s"])
        kept = daemons.run("scd", "calibrate", "--codec", "rd", "--producer", self.model, "--consumer", self.model, "--text", self.text,
                           "--out", out, "--add-consumer", "--group", "2", check=False)  # fmt: skip
        self.assertIn("--group is the encoder's, which --add-consumer keeps", kept.stderr)
        for wrong, said in (("--patch-layers=1", "--patch-layers is not an option of --codec rd"), ("--ratios=6,3", "rise")):
            refused = daemons.run("scd", "calibrate", "--codec", "rd", wrong, "--producer", self.model, "--consumer", self.model,
                                  "--text", self.text, "--out", self.folder / "never", check=False)  # fmt: skip
            self.assertIn(said, refused.stderr)
            self.assertNotIn("loading", refused.stderr)
        self.assertRegex(daemons.run("scd", "inspect", out).stdout, r"level 1: KL [0-9.]+, at most [0-9.]+ \(95 %\)")
        self.check_levels_again(out, self.text)
        pair = ("--producer", self.model, "--consumer", self.model, "--artifact", out, "--tasks", self.questions())
        judged = self.report("eval", *pair, "--codecs", "raw,rd,rd@1")
        self.assertEqual([row["level"] for row in judged], [0, 0, 1])
        self.assertGreater(judged[0]["bytes_per_token"], judged[1]["bytes_per_token"])
        self.assertGreater(judged[1]["bytes_per_token"], judged[2]["bytes_per_token"])
        refused = daemons.run("scd", "eval", *pair, "--codecs", "rd@2", check=False)
        self.assertIn("level '2' of the codec: expected 0 to 1", refused.stderr)
        refused = daemons.run("scd", "eval", *pair, "--codecs", "scd", check=False)
        self.assertIn("needs --artifacts with one of it", refused.stderr)

    def test_variants_of_a_fit_are_searched_and_refused_where_they_mean_nothing(self):
        pair = (*self.own_pair(), "--ratios", "6")
        names = ["full", "no-metric", "no-weights", "head-shared", "fixed-rank", "principal-components"]
        rows = self.report("calibrate", "--codec", "rd", *pair, "--no-prediction", "--variants", ",".join(names),
                           "--out", self.folder / "variants")  # fmt: skip
        searched = [row for row in rows if row["task"] == "search"]
        self.assertEqual([row["variant"] for row in searched], names)
        kl = {row["variant"]: row["kl_answer"] for row in searched}
        # Of one model on both sides the regression without directions of the metric is that of x on x.
        self.assertEqual(kl["no-metric"], kl["principal-components"])
        self.assertEqual(len(set(kl.values())), len(names) - 1)
        for codec, wrong, said in (("rd", "head-shared", "give --no-prediction"), ("rd", "best", "expected of full"),
                                   ("kvtc", "full,no-metric", "--variants is of --codec rd")):  # fmt: skip
            self.assert_calibrate_refuses(said, codec, *pair, "--variants", wrong, "--out", self.folder / "refused")

    def test_networks_of_the_decoder_are_searched_and_refused_where_they_mean_nothing(self):
        pair = self.own_pair()
        out = self.folder / "networks"
        rows = self.report("calibrate", "--codec", "rd", *pair, "--ratios", "6", "--native", "2-2", "--decoder-network", "0,8",
                           "--out", out)  # fmt: skip
        searched = [row for row in rows if row["task"] == "search"]
        self.assertEqual([row["decoder_network"] for row in searched], [0, 8])
        self.assertIn("patch 2", searched[0]["plan"])
        for codec, extra, said in (("kvtc", (), "--decoder-network is of --codec rd"),
                                   ("rd", ("--add-consumer",), "--add-consumer: one width")):  # fmt: skip
            self.assert_calibrate_refuses(said, codec, *pair, *extra, "--decoder-network", "0,8", "--out", out)

    def test_shares_of_the_prediction_are_searched(self):
        pair = self.own_pair()
        out = self.folder / "shares"
        rows = self.report("calibrate", "--codec", "rd", *pair, "--ratios", "6", "--exact-layers", "2", "--anchor-share", "1,0.9",
                           "--out", out)  # fmt: skip
        self.assertEqual([row["anchor_share"] for row in rows if row["task"] == "search"], [1, 0.9])
        for codec, extra, said in (("kvtc", (), "--anchor-share is of --codec rd"),
                                   ("rd", ("--no-prediction",), "--anchor-share: with --no-prediction"),
                                   ("rd", ("--add-consumer",), "--add-consumer: one --anchor-share")):  # fmt: skip
            self.assert_calibrate_refuses(said, codec, *pair, *extra, "--anchor-share", "1,0.9", "--out", out)

    def test_one_encoder_is_calibrated_for_several_consumers_of_any_shape(self):
        tuned, small = self.folder / "several_tuned", self.folder / "several_small"
        daemons.run("scd", "make-model", "--out", tuned, "--seed", "1", "--perturb", "0.1", "--perturb-seed", "4")
        daemons.run("scd", "make-model", "--out", small, "--shape", "small", "--rope-theta", "500000")
        shutil.copy(self.model / "tokenizer.json", small / "tokenizer.json")
        common = ("--codec", "rd", "--producer", self.model, "--text", self.text, "--tokens", "2048", "--window", "256")
        out = self.folder / "several"
        rows = self.report("calibrate", *common, "--ratios", "6,12", "--consumer", f"{self.model},{tuned}", "--out", out)
        self.assertEqual([row["level"] for row in rows], [0, 1, 0, 1])
        self.assertEqual(len({row["consumer"] for row in rows}), 2)
        self.assertEqual(len(list((out / "decoders").iterdir())), 2)
        for consumer in (self.model, tuned):
            judged = self.report("eval", "--producer", self.model, "--consumer", consumer, "--artifact", out,
                                 "--tasks", self.questions(), "--codecs", "rd")  # fmt: skip
            self.assertGreater(judged[0]["bytes_per_token"], 0)

        unlike = self.folder / "several_unlike"
        daemons.run("scd", "calibrate", *common, "--ratios", "48,96", "--consumer", small, "--out", unlike)
        pair = ("--producer", self.model, "--consumer", small, "--artifact", unlike, "--tasks", self.questions())
        self.assertGreater(self.report("eval", *pair, "--codecs", "rd")[0]["bytes_per_token"], 0)
        self.assertIn("producer has layers 4, consumer 8", daemons.run("scd", "eval", *pair, "--codecs", "raw", check=False).stderr)

        for wrong, said in (
            (("--consumer", f"{self.model},{self.model}"), "two consumers are one model"),
            (("--consumer", f"{self.model},{small}"), "as deep as each other"),
            (("--consumer", f"{self.model},{tuned}", "--consumer-adapter", "a,b,c"), "one base for all adapters"),
            (("--codec", "scd", "--consumer", f"{self.model},{tuned}"), "add one consumer at a time"),
        ):
            arguments = common if wrong[0] != "--codec" else ("--producer", self.model, "--text", self.text)
            refused = daemons.run("scd", "calibrate", *arguments, *wrong, "--out", self.folder / "never", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(said, refused.stderr)

    def test_complete_has_the_apis_knobs_and_options_leave_the_prompt_alone(self):
        with daemons.Pair(self.model) as pair:
            plain = pair.complete(None, "--stop", "never said", "--max-tokens", "1", "hello")
            prompt = daemons.run("scd", "tokenize", "--model", self.model, input="hello").stdout.split()
            self.assertEqual(plain["usage"]["prompt_tokens"], len(prompt))
            biased = pair.complete(None, "--logit-bias", "70:100", "--logit-bias", "71:-100", "--max-tokens", "3", "hello")
            self.assertEqual(biased["token_ids"], [70, 70, 70])
            stopped = pair.complete(None, "--logit-bias", "70:100", "--stop-id", "71", "--stop-id", "70", "--priority", "3",
                                    "--max-tokens", "3", "hello")  # fmt: skip
            self.assertEqual(stopped["token_ids"], [70])
            self.assertEqual(stopped["finish_reason"], "stop")
            for penalty in ("--presence-penalty", "--frequency-penalty"):
                self.assertIn("2", pair.complete(None, penalty, "3", "hello", check=False).stderr)
                pair.complete(None, penalty, "-1.5", "--max-tokens", "1", "hello")
            wrong = pair.complete(None, "--logit-bias", "70", "hello", check=False)
            self.assertIn("expected ID:BIAS", wrong.stderr)

    def test_bench_pair_has_a_row_for_each_codec_and_regime(self):
        with daemons.Pair(self.model) as pair:
            rows = self.report("bench", "pair", "--server", pair.decode.address, "--questions", self.questions(),
                               "--codecs", "oracle,raw", "--max-tokens", "4")  # fmt: skip
        self.assertEqual([(row["task"], row["codec"], row["regime"]) for row in rows],
                         [("questions", codec, regime) for codec in ("oracle", "raw")
                          for regime in ("prefill_in_path", "handoff")])  # fmt: skip
        for row in rows:
            self.assertEqual((row["questions"], row["same_answer"]), (2, 1))
            self.assertIsNone(row["perplexity"])
            self.assertEqual(row["ratio_to_bf16"] is None, row["codec"] == "oracle")

    def test_bench_engine_prints_shares_of_the_machines_limits(self):
        rows = self.report("bench", "engine", "--model", self.model, "--prefill", "64", "--batch", "1", "--context", "32",
                           "--steps", "4", "--repetitions", "1")  # fmt: skip
        self.assertTrue(any(key.endswith("_share") for row in rows for key in row))
        made_up = self.report("bench", "engine", "--shape", "tiny", "--prefill", "64", "--batch", "1", "--context", "32",
                              "--steps", "4", "--repetitions", "1")  # fmt: skip
        self.assertEqual([row.keys() for row in made_up], [row.keys() for row in rows])
        done = daemons.run("scd", "bench", "engine", check=False)
        self.assertIn("name a checkpoint folder with --model, or a --shape", done.stderr)

    def test_bench_adapters_compares_with_the_merged_model(self):
        adapter = self.folder / "adapter"
        daemons.write_adapter(self.model, adapter)
        rows = self.report("bench", "adapters", "--model", self.model, "--adapter", adapter, "--adapters", "1,3", "--batch",
                           "2,4", "--context", "32", "--steps", "2", "--repetitions", "2")  # fmt: skip
        self.assertEqual([(row["batch"], row["adapters"]) for row in rows], [(2, 1), (2, 3), (4, 1), (4, 3)])
        for row in rows:
            self.assertEqual(row["adapter_bytes"], row["adapters"] * rows[0]["adapter_bytes"])
            self.assertTrue(row["step_ms"] > 0 and row["merged_step_ms"] > 0 and row["throughput_cost_share"] < 1)

    def test_bench_kernels_measures_every_op(self):
        rows = self.report("bench", "kernels", "--shape", "tiny", "--tokens", "32", "--context", "32", "--batch", "1,2",
                           "--repetitions", "1")  # fmt: skip
        ops = [row["op"] for row in rows]
        for op in ("linear qkv, 32 rows", "attention of 32 tokens", "attention, decoding, batch 2", "rms_norm", "write_kv",
                   "rope_write_kv", "embedding", "decoder layer, prefill of 32", "decoder layer, decoding batch 2 at 32",
                   "sampling, greedy, batch 1", "sampling, top_p 0.9 of many, batch 2"):  # fmt: skip
            self.assertIn(op, ops)
        self.assertTrue(all(row["limit_share"] > 0 and row["total_ms"] > 0 for row in rows))

    def test_bench_kernels_puts_torch_beside_ops_of_the_same_name(self):
        stub = str(pathlib.Path(__file__).with_name("torch_stub"))
        rows = self.report("bench", "kernels", "--shape", "tiny", "--tokens", "32", "--context", "32", "--batch", "1,2",
                           "--repetitions", "1", "--torch", "on", env={**os.environ, "PYTHONPATH": stub})  # fmt: skip
        beside = [row for row in rows if row["torch_ms"] is not None]
        self.assertEqual([row["op"] for row in beside],
                         [row["op"] for row in rows if re.match("linear|attention|decoder layer", row["op"])])  # fmt: skip
        for row in beside:
            self.assertEqual(row["torch"], "stub")
            self.assertAlmostEqual(row["ratio_to_torch"], row["total_ms"] / row["torch_ms"])
        kernels = {row["op"]: row["torch_kernels"] for row in beside}
        self.assertEqual(sorted(kernels["attention of 32 tokens"]), ["CUDNN_ATTENTION", "FLASH_ATTENTION"])
        self.assertEqual(list(kernels["decoder layer, prefill of 32"]), ["compiled"])

    def test_bench_kernels_goes_on_without_python(self):
        done = daemons.run("scd", "bench", "kernels", "--shape", "tiny", "--tokens", "32", "--context", "32", "--batch", "1",
                           "--repetitions", "1", "--torch", "on", env={**os.environ, "PATH": "/nonexistent"})  # fmt: skip
        self.assertIn("no times of torch: starting python3: No such file or directory\n", done.stdout)

    def test_devices_that_cannot_be_used_are_named(self):
        for device, said in (("gpu", "expected cpu, cuda or cuda:N"), ("cuda:4096", "device cuda:4096: ")):
            for bench in (("engine", "--model", self.model), ("kernels",), ("codec",)):
                done = daemons.run("scd", "bench", *bench, "--device", device, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn(said, done.stderr)

    def test_bench_codec_measures_every_level_both_ways(self):
        rows = self.report("bench", "codec", "--layers", "2", "--components", "24,8", "--tokens", "33", "--repetitions",
                           "1")  # fmt: skip
        self.assertEqual([(row["level"], row["phase"]) for row in rows],
                         [(0, "encode"), (0, "decode"), (1, "encode"), (1, "decode")])  # fmt: skip
        self.assertTrue(all(row["whole_gbyte_per_s"] > 0 and row["gemm_share"] > 0 for row in rows))

    def test_bench_scale_counts_processor_time_over_sequences_and_chunks(self):
        rows = self.report("bench", "scale", "--sequences", "1,4", "--chunks", "0,100", "--output-tokens", "8")
        self.assertEqual([row["concurrency"] for row in rows[:2]], [1, 4])
        self.assertTrue(all(row["cpu_us_per_output_token"] > 0 for row in rows[:2]))
        self.assertEqual([row["task"] for row in rows[2:]],
                         ["stored chunks, new prompts", "stored chunks, seen prompts"] * 2)  # fmt: skip
        self.assertGreater(rows[4]["chunks"], rows[2]["chunks"])
        self.assertTrue(all(row["ttft_p50_ms"] > 0 for row in rows[2:]))

    def test_bench_transfer_measures_beside_ucx_perftest(self):
        (row,) = self.report("bench", "transfer", "--transports", "tcp", "--sizes", "256K", "--megabytes", "8", "--repeats",
                             "1")  # fmt: skip
        self.assertGreater(row["mib_per_s"], 0)
        self.assertGreater(row["ucx_perftest_share"], 0)


if __name__ == "__main__":
    unittest.main()
