// Tokens as they are written in the file, by id and by text.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/token.h"

namespace scd {

class Vocabulary {
 public:
  // Bounds the memory a broken file can ask for; the largest published vocabularies are a tenth of it.
  static constexpr TokenId kMaxId = (1 << 22) - 1;

  // Throws Error kInvalidArgument where id or text is taken. `id` must be in [0, kMaxId].
  void insert(const std::string& token, TokenId id);

  std::optional<TokenId> find(std::string_view token) const;
  bool has(TokenId id) const;
  std::string_view token(TokenId id) const;       // empty where there is none
  size_t size() const { return tokens_.size(); }  // largest id + 1

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
  std::vector<std::string_view> tokens_;  // into the keys of ids_, which never move; null data() where an id is unused
};

}  // namespace scd
