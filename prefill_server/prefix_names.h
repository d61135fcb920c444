// What the codes of a prompt's prefix are stored under.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/sha256.h"
#include "prefill_server/handover.h"

namespace scd {

// What all blocks of a prompt's chain depend on.
struct CodeScope {
  std::string cache_salt;
  std::string producer;    // weights fingerprint
  std::string computed{};  // device and precision: the same weights give other bits on another
  Sha256Digest encoder_id{};
  CodecChoice codec{};
  int32_t first_layer = 0;
  int64_t skip_tokens = 0;
};

// Names of a prompt's prefixes: SHA-256(name of the prefix 16 tokens shorter || 16 token ids), seeded by the scope.
class PrefixNames {
 public:
  // tokens: a multiple of 16 of them.
  PrefixNames(const CodeScope& scope, std::span<const TokenId> tokens);
  const Sha256Digest& of(int64_t tokens) const;  // of the first `tokens`, a multiple of 16 and not 0
  int64_t tokens() const { return static_cast<int64_t>(names_.size()) * kHandoverMultiple; }

 private:
  std::vector<Sha256Digest> names_;
};

}  // namespace scd
