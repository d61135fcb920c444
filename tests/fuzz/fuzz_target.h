// What is fuzzed: everything that reads bytes of a peer. Built with libFuzzer where the compiler has it, else with the
// driver beside this (driver.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace scd::fuzz {

// Sound inputs to start from: messages and payloads as the encoders make them.
std::vector<std::vector<uint8_t>> seed_corpus();

}  // namespace scd::fuzz
