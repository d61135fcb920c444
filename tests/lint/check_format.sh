#!/usr/bin/env bash
# Every C++ file is as clang-format 14 (Debian 12) writes it. To mend: git ls-files '*.h' '*.cpp' | xargs clang-format -i
set -euo pipefail
cd "${1:?usage: check_format.sh SOURCE_DIR}"
command -v clang-format >/dev/null || { echo "[  SKIPPED ] clang-format is not installed (Debian: clang-format)"; exit 0; }
find kernels common prefill_server decode_server tools tests -name '*.h' -o -name '*.cpp' | xargs clang-format --dry-run -Werror
