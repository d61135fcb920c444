"""scripts/gpu_skips.py: what `ctest --output-junit` wrote, to a line a reason."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import gpu_skips

SCRIPT = pathlib.Path(gpu_skips.__file__)


def case(name, output, skipped=True):
    state = '<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>' if skipped else ""
    return f'<testcase name="{name}">{state}<system-out>{output}</system-out></testcase>'


def suite(*cases):
    return f'<?xml version="1.0" encoding="UTF-8"?><testsuite>{"".join(cases)}</testsuite>'


NO_DRIVER = "on_cuda.h:64: Skipped\nno GPU: no NVIDIA driver on this machine\n[  SKIPPED ] A.B (0 ms)\n"
TOO_OLD = "gpu.h:10: Skipped\nno GPU: T4 is older than compute capability 8.0\n"


class GpuSkips(unittest.TestCase):
    def test_tests_are_counted_by_reason(self):
        junit = suite(case("A", NO_DRIVER), case("B", TOO_OLD), case("C", NO_DRIVER))
        self.assertEqual(
            list(gpu_skips.lines(junit)),
            [
                "2 tests need a GPU and were skipped: no NVIDIA driver on this machine",
                "1 test needs a GPU and was skipped: T4 is older than compute capability 8.0",
            ],
        )

    def test_other_skips_and_tests_that_ran_do_not_count(self):
        ran = case("B", "no GPU: no NVIDIA driver on this machine", skipped=False)
        self.assertEqual(list(gpu_skips.lines(suite(case("A", "t.cpp:9: Skipped\nno Redis: redis-server"), ran))), [])

    def run_on(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(text)
            file.flush()
            return subprocess.run([sys.executable, SCRIPT, file.name], capture_output=True, text=True)

    def test_a_file_that_ctest_did_not_write_is_silent(self):
        done = self.run_on("")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_file_that_is_cut_off_is_told(self):
        done = self.run_on("<testsuite><testcase>")
        self.assertEqual(done.returncode, 1)
        self.assertIn("were not counted", done.stderr)


if __name__ == "__main__":
    unittest.main()
