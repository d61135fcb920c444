// Models that need no weights, for stages that only have to know who is asked.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "common/tokenizer/byte_tokenizer.h"
#include "decode_server/served_model.h"

namespace scd::testing {

inline Tokenizer byte_tokenizer(const std::filesystem::path& file) {
  std::ofstream(file) << make_byte_tokenizer_json(300);
  return Tokenizer::from_file(file);
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
