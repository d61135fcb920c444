"""scripts/gpu_skips.py: what ctest logged, to a line a reason."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import gpu_skips

SCRIPT = pathlib.Path(gpu_skips.__file__)
RULE = "----------------------------------------------------------\n"


def case(name, output):
    return f'1/3 Testing: {name}\nCommand: "test"\nOutput:\n{RULE}{output}<end of output>\nTest time =   0.01 sec\n{RULE}\n'


def log(*cases, whole=True):
    return "".join([f"Start testing: now\n{RULE}", *cases, "End testing: later\n" if whole else ""])


NO_DRIVER = "on_cuda.h:64: Skipped\nno GPU: no NVIDIA driver on this machine\n[  SKIPPED ] A.B (0 ms)\n"
TOO_OLD = "gpu.h:10: Skipped\nno GPU: T4 is older than compute capability 8.0\n[  SKIPPED ] A.C (0 ms)\n"


class GpuSkips(unittest.TestCase):
    def test_tests_are_counted_by_reason(self):
        self.assertEqual(
            list(gpu_skips.lines(log(case("A", NO_DRIVER), case("B", TOO_OLD), case("C", NO_DRIVER)))),
            [
                "2 tests need a GPU and were skipped: no NVIDIA driver on this machine",
                "1 test needs a GPU and was skipped: T4 is older than compute capability 8.0",
            ],
        )

    def test_other_skips_and_tests_that_ran_do_not_count(self):
        ran = case("B", "no GPU: no NVIDIA driver on this machine\n[       OK ] A.B (0 ms)\n")
        other = case("A", "t.cpp:9: Skipped\nno Redis: redis-server\n[  SKIPPED ] A.B (0 ms)\n")
        self.assertEqual(list(gpu_skips.lines(log(other, ran))), [])

    def run_on(self, **logs):
        """By age, the oldest first."""
        with tempfile.TemporaryDirectory() as folder:
            temporary = pathlib.Path(folder) / "Testing/Temporary"
            temporary.mkdir(parents=True)
            for age, (suffix, text) in enumerate(logs.items()):
                path = temporary / ("LastTest.log" + suffix.replace("_", "."))
                path.write_text(text)
                os.utime(path, (age, age))
            done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_the_log_of_the_run_that_ends_counts_whatever_its_name(self):
        one, none = log(case("A", NO_DRIVER)), log()
        for name in ("_tmp", "_tmp16a2c"):
            self.assertEqual(self.run_on(**{"": none, name: one}).count("1 test needs a GPU"), 1)
            self.assertEqual(self.run_on(**{name: one, "": none}), "")

    def test_a_log_that_is_cut_off_or_not_there_is_told(self):
        self.assertIn("were not counted", self.run_on(_tmp=log(case("A", NO_DRIVER), whole=False)))
        self.assertIn("were not counted", self.run_on())


if __name__ == "__main__":
    unittest.main()
