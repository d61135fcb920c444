#include "common/tokenizer/bpe.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>

#include "common/base/check.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

constexpr size_t kMaxCachedWords = 1 << 16;
constexpr size_t kMaxCachedBytes = 128;  // longer words hardly come twice

// "<0x0A>", the token of a byte.
std::string byte_token(int byte) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "<0x%02X>", byte);
  return text.data();
}

void refuse_unless_empty(const JsonField& model, const std::string& key) {
  const auto field = model.find(key);
  if (field && !field->string().empty()) field->refuse("a " + key);
}

struct MergePair {
  std::string_view left;
  std::string_view right;
};

// "a b" or ["a", "b"].
MergePair read_merge(const JsonField& field) {
  if (field.is_array()) {
    if (field.size() != 2) field.fail("must have two elements");
    return {field.at(size_t{0}).string(), field.at(size_t{1}).string()};
  }
  const std::string_view text = field.string();
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
    field.fail("must be two tokens with one space between them");
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

Bpe::Bpe(const JsonField& model) {
  const auto type = model.find("type");  // early files have none
  if (type && type->string() != "BPE") type->refuse("model '" + type->string() + "'");
  model.allow_only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                    "byte_fallback", "ignore_merges", "vocab", "merges"});
  const auto dropout = model.find("dropout");
  if (dropout && !dropout->is_zero()) dropout->refuse("BPE dropout");
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  fuse_unknown_ = model.boolean_or("fuse_unk", false);
  ignore_merges_ = model.boolean_or("ignore_merges", false);

  read_vocabulary(model.at("vocab"));
  read_merges(model.at("merges"));
  if (model.boolean_or("byte_fallback", false)) read_byte_tokens();
  if (const auto unknown = model.find("unk_token")) {
    unknown_ = vocabulary_.find(unknown->string());
    if (!unknown_) unknown->fail("'" + unknown->string() + "' is not in model.vocab");
  }
}

void Bpe::read_vocabulary(const JsonField& field) {
  field.for_each_member([&](const std::string& token, const JsonField& id) {
    const auto value = static_cast<TokenId>(id.integer(0, Vocabulary::kMaxId));
    id.guard([&] { vocabulary_.insert(token, value); });
  });
  if (vocabulary_.size() == 0) field.fail("must not be empty");
  for (size_t character = 0; character < kDirectCharacters; ++character) {
    std::string text;
    append_utf8(text, static_cast<char32_t>(character));
    direct_[character] = vocabulary_.find(text).value_or(-1);
  }
}

void Bpe::read_merges(const JsonField& field) {
  merges_ = MergeTable(field.size());
  uint32_t rank = 0;
  std::string joined;
  field.for_each([&](const JsonField& merge) {
    const MergePair pair = read_merge(merge);
    const auto id_of = [&](std::string_view token) {
      const std::optional<TokenId> id = vocabulary_.find(token);
      if (!id) merge.fail("needs '" + std::string(token) + "', which is not in model.vocab");
      return *id;
    };
    joined.assign(pair.left).append(pair.right);
    const TokenId left = id_of(pair.left);
    const TokenId right = id_of(pair.right);
    merges_.insert(left, right, {rank++, id_of(joined)});
  });
}

void Bpe::read_byte_tokens() {
  byte_tokens_.emplace();
  for (int byte = 0; byte < 256; ++byte) {
    (*byte_tokens_)[static_cast<size_t>(byte)] = vocabulary_.find(byte_token(byte)).value_or(-1);
  }
}

void Bpe::encode(std::string_view word, Session& session, std::vector<TokenId>& ids) const {
  if (word.empty()) return;
  SCD_CHECK(word.size() <= INT32_MAX, "a word of 2 GiB");
  const bool cacheable = word.size() <= kMaxCachedBytes;
  if (cacheable) {
    const auto seen = session.cache_.find(word);
    if (seen != session.cache_.end()) {
      const auto begin = session.cached_ids_.begin() + seen->second.begin;
      ids.insert(ids.end(), begin, begin + seen->second.count);
      return;
    }
  }
  const size_t before = ids.size();
  const std::optional<TokenId> whole = ignore_merges_ ? vocabulary_.find(word) : std::nullopt;
  if (whole) {
    ids.push_back(*whole);
  } else {
    split_to_symbols(word, session.symbols_);
    merge_symbols(session);
    for (const Session::Symbol& symbol : session.symbols_) {
      if (symbol.id >= 0) ids.push_back(symbol.id);
    }
  }
  if (cacheable && session.cache_.size() < kMaxCachedWords) {
    const auto begin = static_cast<uint32_t>(session.cached_ids_.size());
    session.cache_.emplace(word, Session::IdRange{begin, static_cast<uint32_t>(ids.size() - before)});
    session.cached_ids_.insert(session.cached_ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
  }
}

void Bpe::split_to_symbols(std::string_view word, std::vector<Session::Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](TokenId id) {
    const auto place = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, place - 1, place + 1});
  };
  // As in the reference, an unknown character is written when the next known one comes, behind byte tokens in between.
  bool unknown_waits = false;
  const auto write_unknown = [&] {
    if (unknown_waits) add(*unknown_);
    unknown_waits = false;
  };
  size_t at = 0;
  while (at < word.size()) {
    const size_t start = at;
    const char32_t character = next_character(word, at);
    const std::string_view text = word.substr(start, at - start);
    const TokenId id = character < kDirectCharacters ? direct_[character] : vocabulary_.find(text).value_or(-1);
    const auto token_of = [&](char byte) { return (*byte_tokens_)[static_cast<uint8_t>(byte)]; };
    if (id >= 0) {
      write_unknown();
      add(id);
    } else if (byte_tokens_ && std::all_of(text.begin(), text.end(), [&](char byte) { return token_of(byte) >= 0; })) {
      for (const char byte : text) add(token_of(byte));
    } else if (unknown_) {
      if (!fuse_unknown_) write_unknown();
      unknown_waits = true;
    }
  }
  write_unknown();
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::offer(Session& session, int32_t left) const {
  const Session::Symbol& symbol = session.symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const Merge* merge = merges_.find(symbol.id, session.symbols_[static_cast<size_t>(symbol.next)].id);
  if (merge == nullptr) return;
  session.candidates_.push_back(static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left));
  std::push_heap(session.candidates_.begin(), session.candidates_.end(), std::greater<>());
}

void Bpe::merge_symbols(Session& session) const {
  auto& symbols = session.symbols_;
  auto& candidates = session.candidates_;
  candidates.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(symbols.size()); ++i) offer(session, i);
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), std::greater<>());
    const uint64_t candidate = candidates.back();
    candidates.pop_back();
    const auto place = static_cast<int32_t>(candidate & 0xFFFFFFFFu);
    Session::Symbol& left = symbols[static_cast<size_t>(place)];
    if (left.id < 0 || left.next < 0) continue;
    Session::Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = merges_.find(left.id, right.id);
    // The pair that was offered here may have gone into other merges since.
    if (merge == nullptr || merge->rank != candidate >> 32) continue;
    left.id = merge->merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = place;
    if (left.previous >= 0) offer(session, left.previous);
    offer(session, place);
  }
}

}  // namespace scd
