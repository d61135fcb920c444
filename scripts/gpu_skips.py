#!/usr/bin/env python3
"""How many tests were skipped for want of a GPU, and why, from the log of a run of ctest.

    python3 scripts/gpu_skips.py BUILD_FOLDER

ctest runs this behind its closing lines (cmake/CTestCustom.cmake.in), while its log still has another name.
"""

import collections
import pathlib
import re
import sys

# What SCD_SKIP_WITHOUT_GPU says (tests/support/gpu.h), and what GoogleTest makes of it.
REASON = re.compile(r"^no GPU: (.+)$", re.MULTILINE)
SKIPPED = "[  SKIPPED ]"
OUTPUT = re.compile(r"^Output:\n-+\n(.*?)^<end of output>$", re.MULTILINE | re.DOTALL)


def log_of(folder):
    """Of the last run: LastTest.log.tmp, with letters behind it since CMake 4, until ctest ends."""
    logs = (folder / "Testing/Temporary").glob("LastTest.log*")
    return max(logs, key=lambda log: log.stat().st_mtime_ns, default=None)


def lines(log):
    """One a reason, the commonest first."""
    counts = collections.Counter()
    for output in OUTPUT.findall(log):
        said = REASON.search(output)
        if said and SKIPPED in output:
            counts[said.group(1).strip()] += 1
    for reason, count in counts.most_common():
        yield f"{count} {'test needs' if count == 1 else 'tests need'} a GPU and {'was' if count == 1 else 'were'} skipped: {reason}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = log_of(pathlib.Path(sys.argv[1]))
    log = path.read_text(encoding="utf-8", errors="replace") if path else ""
    # ctest would call a failing command a problem of the run.
    if not re.search(r"^End testing: ", log, re.MULTILINE):
        print(f"tests skipped for want of a GPU were not counted: {path or sys.argv[1]} is no whole log of ctest")
    for line in lines(log):
        print(line)


if __name__ == "__main__":
    main()
