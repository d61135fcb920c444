#include "common/tokenizer/added_tokens.h"

#include <algorithm>

#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

// Where the white space that ends at `end` starts.
size_t space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t start = previous_start(text, end);
    size_t at = start;
    if (!is_space(next_character(text, at))) break;
    end = start;
  }
  return end;
}

// Where the white space that starts at `start` ends.
size_t space_behind(std::string_view text, size_t start) {
  while (start < text.size()) {
    size_t at = start;
    if (!is_space(next_character(text, at))) break;
    start = at;
  }
  return start;
}

bool word_before(std::string_view text, size_t end) {
  if (end == 0) return false;
  size_t at = previous_start(text, end);
  return is_word(next_character(text, at));
}

bool word_behind(std::string_view text, size_t start) {
  return start < text.size() && is_word(next_character(text, start));
}

AddedToken read_added_token(const JsonField& field, const Vocabulary& model) {
  field.allow_only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token;
  token.id = static_cast<TokenId>(field.at("id").integer(0, Vocabulary::kMaxId));
  token.content = field.at("content").string();
  token.special = field.boolean_or("special", false);
  token.single_word = field.boolean_or("single_word", false);
  token.lstrip = field.boolean_or("lstrip", false);
  token.rstrip = field.boolean_or("rstrip", false);
  token.normalized = field.boolean_or("normalized", !token.special);
  const std::optional<TokenId> known = model.find(token.content);
  if (known && *known != token.id) {
    field.fail("gives '" + token.content + "' the id " + std::to_string(token.id) + ", model.vocab gives it " +
               std::to_string(*known));
  }
  if (!known && model.has(token.id)) {
    field.fail("gives '" + token.content + "' the id " + std::to_string(token.id) + ", which model.vocab gives to '" +
               std::string(model.token(token.id)) + "'");
  }
  return token;
}

}  // namespace

AddedTokens::AddedTokens(const JsonField& field, const Vocabulary& model, const Normalizer* normalizer) {
  field.for_each([&](const JsonField& entry) {
    AddedToken token = read_added_token(entry, model);
    const size_t index = tokens_.size();
    if (!by_id_.emplace(token.id, index).second) entry.fail("repeats the id " + std::to_string(token.id));
    if (!by_content_.emplace(token.content, index).second) entry.fail("repeats the content '" + token.content + "'");
    std::string looked_for = token.content;
    if (token.normalized && normalizer != nullptr) normalizer->apply(looked_for);
    (token.normalized ? normalized_ : raw_).add(looked_for, index);
    size_ = std::max(size_, static_cast<size_t>(token.id) + 1);
    tokens_.push_back(std::move(token));
  });
}

std::vector<Segment> AddedTokens::split_raw(std::string_view text, bool parse_special) const {
  return split(raw_, text, parse_special);
}

std::vector<Segment> AddedTokens::split_normalized(std::string_view text, bool parse_special) const {
  return split(normalized_, text, parse_special);
}

bool AddedTokens::accepts(const AddedToken& token, std::string_view text, const TokenMatcher::Match& match) const {
  return !token.single_word || !(word_before(text, match.begin) || word_behind(text, match.end));
}

std::vector<Segment> AddedTokens::split(const TokenMatcher& matcher, std::string_view text, bool parse_special) const {
  std::vector<Segment> segments;
  size_t covered = 0;
  size_t from = 0;
  while (const auto match = matcher.find(text, from)) {
    const AddedToken& token = tokens_[match->index];
    from = match->end;
    if ((token.special && !parse_special) || !accepts(token, text, *match)) continue;
    size_t begin = match->begin;
    if (token.lstrip) begin = std::max(space_before(text, begin), covered);
    if (token.rstrip) from = space_behind(text, from);
    if (begin > covered) segments.push_back({text.substr(covered, begin - covered), std::nullopt});
    segments.push_back({text.substr(begin, from - begin), token.id});
    covered = from;
  }
  if (covered < text.size()) segments.push_back({text.substr(covered), std::nullopt});
  return segments;
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace scd
