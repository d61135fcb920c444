"""Several prefill servers and several decode servers as processes (xPyD): who is asked, who dies, who comes back."""

import concurrent.futures
import tempfile
import time
import unittest

import daemons

STORY = "The quick brown fox jumps over the lazy dog and runs into the forest. " * 12
OPTIONS = ("--max-tokens", "12", "--ignore-eos", "--skip-prefix-cache")
SERVED = 'scd_prefill_requests_total{outcome="ok"}'
PATIENCE_SECONDS = 60


class PeersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.models = tempfile.TemporaryDirectory(prefix="scd-e2e-models-")
        cls.addClassCleanup(cls.models.cleanup)
        cls.model = daemons.tiny_model(cls.models.name)

    def ask_all(self, cluster, prompts, during=None):
        """Each prompt of a decode server in turn, six at once; `during` runs while they do."""
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            asked = [
                pool.submit(cluster.complete, i % len(cluster.decodes), prompt, *OPTIONS, "--codec", "raw")
                for i, prompt in enumerate(prompts)
            ]
            if during:
                during()
            return [future.result() for future in asked]

    def served(self, cluster):
        return [daemons.scrape(daemon).get(SERVED, 0) for daemon in cluster.prefills]

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.1)

    def up(self, cluster, decode, prefill):
        start = f'scd_prefill_endpoint_up{{endpoint="127.0.0.1:{cluster.ports[prefill]}"'
        return any(v == 1 for name, v in daemons.scrape(cluster.decodes[decode]).items() if name.startswith(start))

    def test_two_prefill_and_three_decode_servers_answer_as_one_alone_while_one_is_killed_and_comes_back(self):
        # A slow link, so that transfers are under way when a server dies.
        decode = {"prefill.health_every_ms": 200, "fallback.local_prefill": "false"}
        with daemons.Cluster(
            self.model, prefills=2, decodes=3, prefill={"link.bandwidth_gbps": 0.05}, decode=decode
        ) as cluster:
            prompts = [f"Story {i}. " + STORY[: 400 + 20 * i] for i in range(18)]
            alone = [cluster.complete(0, prompt, *OPTIONS, "--codec", "oracle")["token_ids"] for prompt in prompts]

            first = self.ask_all(cluster, prompts)
            self.assertEqual([answer["token_ids"] for answer in first], alone)
            self.assertTrue(all(count > 0 for count in self.served(cluster)), "both prefill servers were asked")

            def kill():
                before = self.served(cluster)[1]
                self.wait_until(lambda: self.served(cluster)[1] > before, "it has work")
                cluster.prefills[1].kill()

            others = [prompt.replace("Story", "Tale") for prompt in prompts]
            alone = [cluster.complete(0, prompt, *OPTIONS, "--codec", "oracle")["token_ids"] for prompt in others]
            second = self.ask_all(cluster, others, during=kill)
            self.assertEqual([answer["token_ids"] for answer in second], alone)
            self.assertTrue(all(answer["transfer"]["wire_bytes"] > 0 for answer in second), "the other one delivered")
            for index in range(3):
                self.wait_until(lambda: not self.up(cluster, index, 1), "its death is noticed")

            cluster.prefills[1] = cluster.start_prefill(1)
            for index in range(3):
                self.wait_until(lambda: self.up(cluster, index, 1), "its return is noticed")
            again = [prompt.replace("Story", "Fable") for prompt in prompts]
            alone = [cluster.complete(0, prompt, *OPTIONS, "--codec", "oracle")["token_ids"] for prompt in again]
            third = self.ask_all(cluster, again)
            self.assertEqual([answer["token_ids"] for answer in third], alone)
            self.assertGreater(self.served(cluster)[1], 0, "it is asked again")
            for daemon in cluster.decodes + cluster.prefills:
                self.assertEqual(daemon.stop(), 0)

    def test_prompts_that_begin_alike_go_to_the_prefill_server_that_has_their_codes(self):
        with daemons.Cluster(self.model, prefills=3, decodes=1) as cluster:
            for _ in range(6):
                cluster.complete(0, STORY, *OPTIONS)
            self.assertEqual(sorted(self.served(cluster)), [0, 0, 6])
            chosen = {
                name: value
                for name, value in daemons.scrape(cluster.decodes[0]).items()
                if name.startswith("scd_prefill_endpoint_choices_total") and 'reason="prefix"' in name
            }
            self.assertEqual(sum(chosen.values()), 5)

    def test_a_name_stands_for_its_addresses(self):
        with daemons.Cluster(self.model, prefills=1, decodes=0) as cluster:
            cluster.decodes.append(
                daemons.Daemon(
                    "decode_server",
                    cluster.folder.name,
                    {
                        **daemons.common_settings(),
                        "model.directory": self.model,
                        "codec.mode": "raw",
                        "prefill.endpoints": f"[localhost:{cluster.ports[0]}]",
                    },
                )
            )
            answer = cluster.complete(0, STORY, *OPTIONS)
            self.assertEqual(answer["transfer"]["prefill_endpoint"], f"127.0.0.1:{cluster.ports[0]}")


if __name__ == "__main__":
    unittest.main()
