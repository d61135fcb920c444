#!/usr/bin/env bash
# A program that was built with CUDA starts on machines without toolkit or driver: it opens their libraries when it uses
# them, and names none that the loader would look for. Usage: check_links.sh PROGRAM...
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: check_links.sh PROGRAM..." >&2; exit 2; }
command -v readelf > /dev/null || { echo "[  SKIPPED ] readelf is not installed (Debian: binutils)"; exit 0; }
failed=0 looked_at=()
for program in "$@"; do
  if [ ! -e "$program" ]; then echo "$program is not built"; continue; fi
  looked_at+=("${program##*/}")
  needed=$(LC_ALL=C readelf -d "$program")
  [[ $needed == *"(NEEDED)"* ]] || { echo "$program: readelf finds nothing that it needs"; failed=1; }
  if grep -E '\(NEEDED\).*\[(libcuda|libcudart|libcublas(Lt)?|libcusolver(Mg)?|libnvidia-ml)\.so' <<< "$needed"; then
    echo "$program: needs these to start"
    failed=1
  fi
done
[ ${#looked_at[@]} -gt 0 ] || { echo "[  SKIPPED ] none of them is built"; exit 0; }
[ $failed -ne 0 ] || echo "start without CUDA's libraries: ${looked_at[*]}"
exit $failed
