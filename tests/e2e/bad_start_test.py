"""What a user gets wrong before anything runs: each ends at once, with what was wrong and what would be right."""

import pathlib
import socket
import tempfile
import unittest

import daemons


class BadStartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="scd-e2e-bad-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = daemons.tiny_model(cls.folder.name)

    def refused(self, *arguments):
        done = daemons.run(*arguments, check=False, timeout=60)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertGreater(done.returncode, 0, "ended by a signal")
        return done.stdout + done.stderr

    def test_an_unknown_key_is_named_with_its_line_and_the_nearest_key(self):
        config = pathlib.Path(self.folder.name) / "decode.yaml"
        config.write_text("model:\n  directory: /tmp\n  adaptor: /tmp\n", encoding="utf-8")
        message = self.refused("decode_server", "--config", config, "--check-config")
        self.assertIn("decode.yaml:3", message)
        self.assertIn("adaptor", message)
        self.assertIn("adapter", message)

    def test_check_config_resolves_the_hosts_of_the_data_plane(self):
        for name in ("prefill_server", "decode_server"):
            for key in ("transport.listen_host", "transport.advertise"):
                message = self.refused(name, "--set", f"model.directory={self.model}", "--set",
                                       f"{key}=no.such.host.invalid", "--check-config")  # fmt: skip
                self.assertIn(f"{key}: address no.such.host.invalid", message)

    def test_models_that_cannot_be_served_are_named(self):
        config = pathlib.Path(self.folder.name) / "models.yaml"
        for models, said in (
            ("- {name: a, adapter: /nonexistent/adapter}", "models[0].adapter: /nonexistent/adapter"),
            ("- {name: a}\n  - {name: a}", "models[1].name: 'a'"),
            ("- {name: a, adaptor: /tmp}", "models.yaml:3: unknown key 'adaptor' in 'models[0]'; did you mean 'adapter'?"),
        ):
            config.write_text(f"model: {{directory: {self.model}}}\nmodels:\n  {models}\n", encoding="utf-8")
            self.assertIn(said, self.refused("decode_server", "--config", config, "--check-config"))

    def test_a_missing_checkpoint_is_named(self):
        message = self.refused("prefill_server", "--set", "model.directory=/nonexistent/model")
        self.assertIn("/nonexistent/model", message)

    def test_a_truncated_checkpoint_is_named(self):
        broken = daemons.tiny_model(self.folder.name, "broken")
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        message = self.refused("prefill_server", "--set", f"model.directory={broken}")
        self.assertIn("model.safetensors", message)

    def test_a_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            message = self.refused(
                "prefill_server", "--set", f"model.directory={self.model}", "--set", f"grpc.listen={address}"
            )
        self.assertIn(address, message)

    def test_scd_complete_without_a_server_says_what_to_start(self):
        message = self.refused("scd", "complete", "--server", "127.0.0.1:1", "--timeout", "5", "hello")
        self.assertIn("decode_server", message)

    def test_defaults_dump_and_check(self):
        for name in ("prefill_server", "decode_server"):
            dumped = daemons.run(name, "--dump-config").stdout
            file = pathlib.Path(self.folder.name) / f"{name}.yaml"
            file.write_text(dumped, encoding="utf-8")
            daemons.run(name, "--config", file, "--set", f"model.directory={self.model}", "--check-config")
            self.assertEqual(daemons.run(name, "--config", file, "--dump-config").stdout, dumped)


if __name__ == "__main__":
    unittest.main()
