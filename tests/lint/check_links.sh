#!/usr/bin/env bash
# A program that was built with CUDA starts on machines without toolkit or driver: it opens their libraries when it uses
# them, and names none that the loader would look for. One of a static build names no packages' libraries either.
# Usage: check_links.sh [--static] PROGRAM...
set -euo pipefail
refused='libcuda|libcudart|libcublas(Lt)?|libcusolver(Mg)?|libnvidia-ml' start="start without CUDA's libraries"
if [ "${1:-}" = --static ]; then
  shift
  refused='(?!(libc|libm|libmvec|libdl|libpthread|librt|ld-linux[^.]*|libstdc\+\+|libgcc_s|libgomp)\.so)[^\]]*'
  start="start with the C library's and the compiler's alone"
fi
[ $# -gt 0 ] || { echo "usage: check_links.sh [--static] PROGRAM..." >&2; exit 2; }
command -v readelf > /dev/null || { echo "[  SKIPPED ] readelf is not installed (Debian: binutils)"; exit 0; }
failed=0 looked_at=()
for program in "$@"; do
  if [ ! -e "$program" ]; then echo "$program is not built"; continue; fi
  looked_at+=("${program##*/}")
  needed=$(LC_ALL=C readelf -d "$program")
  [[ $needed == *"(NEEDED)"* ]] || { echo "$program: readelf finds nothing that it needs"; failed=1; }
  found=0
  grep -P "\(NEEDED\).*\[($refused)\.so" <<< "$needed" || found=$?
  [ $found -eq 1 ] || { echo "$program: needs these to start, or grep knows no -P"; failed=1; }
done
[ ${#looked_at[@]} -gt 0 ] || { echo "[  SKIPPED ] none of them is built"; exit 0; }
[ $failed -ne 0 ] || echo "$start: ${looked_at[*]}"
exit $failed
