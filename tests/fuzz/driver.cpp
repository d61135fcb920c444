// Runs the fuzz target without libFuzzer: mutates a seed corpus for $SCD_FUZZ_SECONDS (or the first argument; default
// 5) and prints how many inputs ran. A finding ends the process, by the sanitizers or by abort, after the input that
// made it was written to fuzz_finding.bin. Files named as further arguments are run first, once each.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"

// Of the sanitizers' runtime, where one is linked.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kLongestInput = 1 << 14;
constexpr const char* kFindingFile = "fuzz_finding.bin";

const Input* running = nullptr;

void save_running_input() {
  if (running == nullptr) return;
  std::FILE* file = std::fopen(kFindingFile, "wb");
  if (file == nullptr) return;
  std::fwrite(running->data(), 1, running->size(), file);
  std::fclose(file);
  std::fprintf(stderr, "fuzz: the input is in %s\n", kFindingFile);
}

void on_abort(int) {
  save_running_input();
  std::_Exit(1);
}

void run(const Input& input) {
  running = &input;
  LLVMFuzzerTestOneInput(input.data(), input.size());
  running = nullptr;
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  Input mutate(const std::vector<Input>& corpus) {
    Input input = corpus[below(corpus.size())];
    const size_t changes = 1 + below(4);
    for (size_t i = 0; i < changes; ++i) change(input, corpus);
    if (input.size() > kLongestInput) input.resize(kLongestInput);
    return input;
  }

 private:
  size_t below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void change(Input& input, const std::vector<Input>& corpus) {
    static constexpr uint8_t kTelling[] = {0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF};
    // The first bytes are headers: half of the changes go there.
    const size_t at = below(below(2) == 0 ? std::min<size_t>(input.size(), 24) : input.size());
    switch (below(6)) {
      case 0:
        if (!input.empty()) input[at] ^= static_cast<uint8_t>(1U << below(8));
        break;
      case 1:
        if (!input.empty()) input[at] = kTelling[below(std::size(kTelling))];
        break;
      case 2:
        if (!input.empty()) input[at] = static_cast<uint8_t>(random_());
        break;
      case 3: input.resize(below(input.size() + 1)); break;
      case 4:
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), below(64), static_cast<uint8_t>(random_()));
        break;
      default: {
        const Input& other = corpus[below(corpus.size())];
        const size_t from = below(other.size());
        input.resize(std::min(input.size(), at));
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
  }

  std::mt19937_64 random_;
};

double seconds_from(const char* text) {
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end != text && *end == '\0' && seconds >= 0) return seconds;
  std::fprintf(stderr, "fuzz: '%s' is no number of seconds\n", text);
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGABRT, on_abort);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(save_running_input);
  double seconds = 5;
  if (const char* wanted = std::getenv("SCD_FUZZ_SECONDS")) seconds = seconds_from(wanted);
  if (argc > 1) seconds = seconds_from(argv[1]);

  const std::vector<Input> corpus = scd::fuzz::seed_corpus();
  for (int i = 2; i < argc; ++i) {
    std::ifstream stream(argv[i], std::ios::binary);
    run(Input(std::istreambuf_iterator<char>(stream), {}));
  }
  for (const Input& seed : corpus) run(seed);
  Mutator mutator(std::random_device{}());
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t runs = 0;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 100; ++i, ++runs) run(mutator.mutate(corpus));
  }
  std::printf("fuzz: %llu inputs in %.0f s, nothing found\n", static_cast<unsigned long long>(runs), seconds);
  return 0;
}
