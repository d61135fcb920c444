// The key-value retrieval task of "Lost in the Middle" (Liu et al. 2023, arXiv:2307.03172): find one key of a JSON
// object of random UUIDs and say its value, asked in the paper's words. Nothing but the cache can tell the answer.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tools/scd/questions.h"

namespace scd {

struct KeyValueCase {
  std::vector<std::pair<std::string, std::string>> records;  // key, value; in the object's order
  std::string key;                                           // the one asked for
  std::string value;                                         // the right answer
};

// `keys`: keep this many records around the one asked for, so that the prompt fits a small model; it keeps its relative
// place in the object. 0, or more than there are: all. Throws Error kInvalidArgument when no record holds key and
// value.
Question key_value_question(const KeyValueCase& item, int32_t keys);

}  // namespace scd
