#!/usr/bin/env python3
"""How many tests were skipped for want of a GPU, and why, from what `ctest --output-junit FILE` wrote.

    python3 scripts/gpu_skips.py FILE
"""

import collections
import re
import sys
import xml.etree.ElementTree

# What SCD_SKIP_WITHOUT_GPU says (tests/support/gpu.h).
REASON = re.compile(r"^no GPU: (.+)$", re.MULTILINE)


def lines(junit):
    """One a reason, the commonest first."""
    counts = collections.Counter()
    for case in xml.etree.ElementTree.fromstring(junit).iter("testcase"):
        said = REASON.search(case.findtext("system-out") or "") if case.find("skipped") is not None else None
        if said:
            counts[said.group(1).strip()] += 1
    for reason, count in counts.most_common():
        yield f"{count} {'test needs' if count == 1 else 'tests need'} a GPU and {'was' if count == 1 else 'were'} skipped: {reason}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        with open(sys.argv[1], "rb") as file:
            junit = file.read()
        found = list(lines(junit)) if junit else []  # ctest -N writes none
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        sys.exit(f"tests skipped for want of a GPU were not counted: {sys.argv[1]}: {error}")
    for line in found:
        print(line)


if __name__ == "__main__":
    main()
