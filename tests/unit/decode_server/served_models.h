// Models that need no weights, for stages that only have to know who is asked.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "common/tokenizer/byte_tokenizer.h"
#include "decode_server/served_model.h"

namespace scd::testing {

// Its file is this process's own: tests run beside each other.
inline Tokenizer byte_tokenizer(int vocabulary = 300) {
  const auto file =
      std::filesystem::temp_directory_path() / ("scd_byte_tokenizer_" + std::to_string(::getpid()) + ".json");
  std::ofstream(file) << make_byte_tokenizer_json(vocabulary);
  Tokenizer tokenizer = Tokenizer::from_file(file);
  std::filesystem::remove(file);
  return tokenizer;
}

inline std::shared_ptr<ServedModel> served_model(ValidationContext validation, PrefixCache& prefixes,
                                                 ConsumerIdentity identity = {}) {
  return std::make_shared<ServedModel>(ServedModel::Args{.identity = std::move(identity),
                                                         .adapter = nullptr,
                                                         .codec = {},
                                                         .costs = {},
                                                         .validation = std::move(validation),
                                                         .prefixes = prefixes});
}

}  // namespace scd::testing
