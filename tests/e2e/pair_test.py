"""The two daemons as processes: hand-over over UCX, health, reflection, failures, clean ends."""

import json
import os
import pathlib
import signal
import tempfile
import threading
import unittest

import grpc

import daemons

PROMPT = "The quick brown fox jumps over the lazy dog and runs into the forest. " * 12
RAW_BYTES = {"request_serializer": None, "response_deserializer": None}


class PairTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.models = tempfile.TemporaryDirectory(prefix="scd-e2e-models-")
        cls.addClassCleanup(cls.models.cleanup)
        cls.model = daemons.tiny_model(cls.models.name)

    def assert_hands_over(self, transports):
        with daemons.Pair(self.model, transports=transports) as pair:
            options = ("--max-tokens", "24", "--ignore-eos")
            oracle = pair.complete(PROMPT, *options, "--codec", "oracle")
            raw = pair.complete(PROMPT, *options, "--codec", "raw", "--skip-prefix-cache")
            self.assertEqual(raw["transfer"]["codec"], "raw")
            self.assertEqual(raw["transfer"]["fallback_reason"], "")
            self.assertGreater(raw["transfer"]["wire_bytes"], 0)
            self.assertEqual(raw["token_ids"], oracle["token_ids"], "same model, raw cache: the same answer")
            again = pair.complete(PROMPT, *options, "--codec", "raw", "--skip-prefix-cache")
            self.assertGreater(again["transfer"]["cached_tokens"], 0, "the codes exist by now")
            self.assertEqual(again["token_ids"], raw["token_ids"])
            kept = pair.complete(PROMPT, *options, "--codec", "raw")
            self.assertGreater(kept["transfer"]["prefix_cached_tokens"], 0, "the decode server kept the pages")
            self.assertEqual(kept["transfer"]["wire_bytes"], 0)
            self.assertEqual(kept["token_ids"], raw["token_ids"])
            self.assertEqual(pair.decode.stop(), 0)
            self.assertEqual(pair.prefill.stop(), 0)

    def test_adapters_are_models_that_requests_name(self):
        with tempfile.TemporaryDirectory(prefix="scd-e2e-adapter-") as folder:
            adapter = pathlib.Path(folder) / "adapter"
            daemons.write_adapter(self.model, adapter)
            models = {"models": f"[{{name: plain}}, {{name: tuned, adapter: {adapter}}}]", "codec.mode": "auto"}
            with daemons.Pair(self.model, decode=models) as pair:
                options = ("--max-tokens", "4", "--ignore-eos", "--logprobs", "5")
                plain, tuned = (pair.complete(PROMPT, *options, "--model", name) for name in ("plain", "tuned"))
                self.assertIn(plain["transfer"]["codec"], ("raw", "lossless"), "the base is the producer's model")
                self.assertEqual(tuned["transfer"]["codec"], "oracle", "no artifact holds a decoder for the adapter")
                self.assertNotEqual(plain["logprobs"], tuned["logprobs"])
                self.assertEqual(pair.complete(PROMPT, *options)["token_ids"], plain["token_ids"], "the first is the default")
                unknown = pair.complete(PROMPT, "--model", "other", check=False)
                self.assertIn("this server has 'plain', 'tuned'", unknown.stderr)
                self.assertEqual(pair.decode.stop(), 0)

    def test_raw_over_tcp_gives_the_oracles_tokens_and_the_second_request_uses_stored_codes(self):
        self.assert_hands_over("tcp")

    def test_raw_over_shared_memory_gives_the_oracles_tokens(self):
        # The listener needs tcp to make the connection; payloads take the shared memory lane.
        self.assert_hands_over("tcp,sm,self")

    def test_many_prompts_at_once_answer_as_they_do_alone(self):
        with daemons.Pair(self.model) as pair:
            prompts = [f"Story {i}. " + PROMPT[: 200 + 60 * i] for i in range(6)]
            options = ("--max-tokens", "16", "--ignore-eos")
            alone = [pair.complete(prompt, *options, "--cache-salt", "alone")["token_ids"] for prompt in prompts]
            together = [None] * len(prompts)

            def ask(index):
                together[index] = pair.complete(prompts[index], *options)["token_ids"]

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(together, alone)

    def test_a_prefill_server_killed_in_mid_transfer_costs_a_fallback_not_the_request(self):
        with daemons.Pair(self.model, prefill={"link.bandwidth_gbps": 0.001}) as pair:
            result = {}
            asking = threading.Thread(target=lambda: result.update(pair.complete(PROMPT, "--codec", "raw")))
            asking.start()
            pair.prefill.wait_for_log("peer_connected")  # the codes are about to leave, and will take seconds
            pair.prefill.kill()
            asking.join()
            self.assertNotEqual(result["transfer"]["fallback_reason"], "")
            self.assertEqual(pair.complete("Still there?", "--max-tokens", "4")["usage"]["completion_tokens"], 4)
            self.assertEqual(pair.decode.stop(), 0)

    def test_without_fallback_a_dead_prefill_server_is_a_typed_error(self):
        with daemons.Pair(self.model, decode={"fallback.local_prefill": "false"}) as pair:
            pair.prefill.kill()
            done = pair.complete(PROMPT, "--codec", "raw", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("UNAVAILABLE", done.stderr)
            self.assertEqual(pair.complete(PROMPT, "--codec", "oracle")["finish_reason"], "length")

    def test_health_and_reflection_answer_standard_clients(self):
        with daemons.Pair(self.model) as pair:
            for daemon, service in ((pair.decode, b"CompletionService"), (pair.prefill, b"PrefillService")):
                with grpc.insecure_channel(daemon.address) as channel:
                    check = channel.unary_unary("/grpc.health.v1.Health/Check", **RAW_BYTES)
                    self.assertEqual(check(b"", timeout=10), b"\x08\x01", "SERVING")
                    watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **RAW_BYTES)
                    self.assertEqual(next(iter(watch(b"", timeout=10))), b"\x08\x01", "SERVING")
                    reflect = channel.stream_stream(
                        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", **RAW_BYTES
                    )
                    listed = next(iter(reflect(iter([b"\x3a\x01*"]), timeout=10)))  # list_services: "*"
                    self.assertIn(b"scd.v1." + service, listed)

    def test_both_servers_tell_prometheus_what_they_did(self):
        listen = {"metrics.listen": "127.0.0.1:0"}
        with daemons.Pair(self.model, prefill=listen, decode=listen) as pair:
            answer = pair.complete(PROMPT, "--max-tokens", "8", "--ignore-eos")
            decode, prefill = (daemons.scrape(daemon) for daemon in (pair.decode, pair.prefill))
            self.assertEqual(decode['scd_requests_total{outcome="length",model="tiny"}'], 1)
            self.assertEqual(decode["scd_inter_token_latency_seconds_count"], 7)
            way = f'endpoint="{pair.prefill.address}",codec="raw",level="0"'
            self.assertEqual(decode[f"scd_transfer_bytes_total{{{way}}}"], answer["transfer"]["wire_bytes"])
            self.assertEqual(prefill['scd_prefill_requests_total{outcome="ok"}'], 1)
            sent = [value for name, value in prefill.items() if name.startswith("scd_prefill_sent_bytes_total")]
            self.assertEqual(sent, [decode["scd_received_bytes_total"]])
            lanes = [name for name in prefill if name.startswith("scd_prefill_peer_info")]
            self.assertRegex(lanes[0], 'lanes="[^"]*tcp')

    def test_sigterm_lets_a_running_request_end_and_exits_with_zero(self):
        with daemons.Pair(self.model) as pair:
            asking = pair.streaming(PROMPT, "--max-tokens", "300", "--ignore-eos")
            first = asking.stdout.read(1)
            pair.decode.process.send_signal(signal.SIGTERM)
            answer, account = asking.communicate(timeout=60)
            self.assertEqual(asking.returncode, 0, account)
            self.assertIn(b"300 generated", account)
            self.assertEqual(len(first), 1)
            self.assertEqual(pair.decode.process.wait(30), 0)

    def test_artifacts_and_models_that_do_not_fit_are_refused_by_name(self):
        other = daemons.tiny_model(self.models.name, "other", "--perturb", "0.1")
        artifact = os.path.join(self.models.name, "artifact")
        text = os.path.join(self.models.name, "text.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("".join(f"Line {i}: {PROMPT}\n" for i in range(40)))
        daemons.run("scd", "calibrate", "--producer", self.model, "--consumer", other, "--text", text, "--out", artifact,
                    "--tokens", "4096", "--patch-layers", "0")  # fmt: skip
        decode = {"codec.mode": "scd", "codec.artifact": artifact, "fallback.local_prefill": "false"}
        with daemons.Pair(self.model, consumer=other, prefill={"codec.artifact": artifact}, decode=decode) as pair:
            answer = pair.complete(PROMPT, "--max-tokens", "8", "--ignore-eos")
            self.assertEqual(answer["transfer"]["codec"], "scd")
            self.assertEqual(answer["transfer"]["fallback_reason"], "")
        with self.assertRaisesRegex(AssertionError, "(?i)decoder|fingerprint|consumer"):
            with daemons.Pair(self.model, prefill={"codec.artifact": artifact}, decode=decode):
                pass
        # The decode server's artifact fits its own model, but the prefill server runs another one.
        with daemons.Pair(other, consumer=other, decode=decode) as pair:
            done = pair.complete(PROMPT, check=False)
            self.assertIn("FAILED_PRECONDITION", done.stderr)
            self.assertRegex(done.stderr, "(?i)weights|encoder")


class GoldenPairTest(unittest.TestCase):
    """The real model through the pair gives what an independent implementation gave."""

    def test_smollm2_continues_as_the_golden_file_says(self):
        model, case = daemons.demo_model(), daemons.test_data("golden/smollm2/case.json")
        if model is None or case is None:
            self.skipTest("[  SKIPPED ] SmolLM2 or its golden continuations are not at hand")
        rows = json.loads(case.read_text(encoding="utf-8"))["rows"]
        with daemons.Pair(model) as pair:
            for row in rows:
                ids = ",".join(map(str, row["prompt_ids"]))
                count = len(row["greedy"])
                answer = pair.complete(None, "--ids", ids, "--max-tokens", str(count), "--ignore-eos", "--codec", "raw")
                narrow = next((i for i, margin in enumerate(row["margins"]) if margin < 0.1), count)
                self.assertEqual(answer["token_ids"][:narrow], row["greedy"][:narrow])


if __name__ == "__main__":
    unittest.main()
