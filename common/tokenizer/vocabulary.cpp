#include "common/tokenizer/vocabulary.h"

#include "common/base/error.h"

namespace scd {

void Vocabulary::insert(const std::string& token, TokenId id) {
  SCD_CHECK(id >= 0 && id <= kMaxId, "token id out of range");
  if (has(id)) {
    throw Error(ErrorCode::kInvalidArgument, "id " + std::to_string(id) + " of '" + token + "' already belongs to '" +
                                                 std::string(this->token(id)) + "'");
  }
  const auto [place, is_new] = ids_.try_emplace(token, id);
  if (!is_new) {
    throw Error(ErrorCode::kInvalidArgument,
                "'" + token + "' has two ids, " + std::to_string(place->second) + " and " + std::to_string(id));
  }
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = place->first;
}

std::optional<TokenId> Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool Vocabulary::has(TokenId id) const {
  return id >= 0 && static_cast<size_t>(id) < tokens_.size() && tokens_[static_cast<size_t>(id)].data() != nullptr;
}

std::string_view Vocabulary::token(TokenId id) const {
  return has(id) ? tokens_[static_cast<size_t>(id)] : std::string_view();
}

}  // namespace scd
