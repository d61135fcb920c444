"""scripts/provenance.py: what nvidia-smi says, and what stands there where it says nothing."""

import os
import pathlib
import tempfile
import unittest
from unittest import mock

import provenance


class Provenance(unittest.TestCase):
    def smi(self, script):
        """A program in the place of nvidia-smi."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = pathlib.Path(folder.name) / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        return str(program)

    def test_a_line_of_nvidia_smi_becomes_driver_and_clocks(self):
        fields = provenance.gpu(0, self.smi("echo '580.159.04, 1755, 1980, 2619, 2619'"))
        expected = {"gpu_driver": "580.159.04", "sm_clock_mhz": 1755, "sm_clock_max_mhz": 1980}
        self.assertEqual(fields, expected | {"memory_clock_mhz": 2619, "memory_clock_max_mhz": 2619})

    def test_what_it_does_not_know_is_none_and_named(self):
        fields = provenance.parsed("580.159.04, [N/A], 1980, 2619, [Unknown Error]")
        self.assertEqual(fields["gpu_driver"], "580.159.04")
        self.assertEqual((fields["sm_clock_mhz"], fields["sm_clock_max_mhz"]), (None, 1980))
        self.assertIsNone(fields["memory_clock_max_mhz"])
        self.assertEqual(fields["clocks_unknown"], "nvidia-smi has no clocks.sm, clocks.max.mem")

    def test_without_a_program_or_an_answer_nothing_is_made_up(self):
        for program in ("/nowhere/nvidia-smi", self.smi("exit 9"), self.smi("echo No devices were found")):
            fields = provenance.gpu(0, program)
            self.assertTrue(all(fields[name] is None for name in provenance.FIELDS), fields)
            self.assertIn(program, fields["clocks_unknown"])

    def test_a_given_commit_counts_before_gits(self):
        with mock.patch.dict(os.environ, {"SCD_COMMIT": "0123456789ab"}):
            self.assertEqual(provenance.commit(), "0123456789ab")

    def test_without_git_and_a_given_commit_there_is_none(self):
        with mock.patch.dict(os.environ, {"PATH": "/nowhere", "SCD_COMMIT": ""}):
            self.assertIsNone(provenance.commit())


if __name__ == "__main__":
    unittest.main()
