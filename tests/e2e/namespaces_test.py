"""Two prefill and three decode servers behind shaped links, where this machine lets us make network namespaces."""

import pathlib
import subprocess
import tempfile
import unittest

import daemons

SKIPPED = 77


class NamespacesTest(unittest.TestCase):
    def test_answers_across_shaped_links_are_those_of_the_decode_servers_alone(self):
        with tempfile.TemporaryDirectory(prefix="scd-e2e-models-") as folder:
            model = daemons.tiny_model(folder)
            script = daemons.SOURCE / "scripts/namespaces"
            command = [script, "--bin", daemons.BINARIES, "--model", pathlib.Path(model), "--prompts", "2", "--tokens", "160"]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
        if done.returncode == SKIPPED:
            self.skipTest("[  SKIPPED ] " + done.stderr.strip().splitlines()[-1])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all 6 answers are those of the decode server alone", done.stdout)
        self.assertIn("was not asked again", done.stdout)


if __name__ == "__main__":
    unittest.main()
