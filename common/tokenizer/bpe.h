// The BPE model of a tokenizer.json: one word to ids by repeatedly merging the pair of lowest rank, leftmost first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/token.h"
#include "common/tokenizer/json_field.h"
#include "common/tokenizer/merge_table.h"
#include "common/tokenizer/vocabulary.h"

namespace scd {

class Bpe {
 public:
  // What one call of the tokenizer keeps between words: buffers, and the words seen so far. Words are cached by view:
  // their characters must outlive the session.
  class Session {
   private:
    friend class Bpe;
    struct Symbol {
      TokenId id;  // -1: merged into the one before it
      int32_t previous;
      int32_t next;
    };
    struct IdRange {
      uint32_t begin;
      uint32_t count;
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> candidates_;  // a min-heap of rank << 32 | position of the left symbol
    std::unordered_map<std::string_view, IdRange> cache_;
    std::vector<TokenId> cached_ids_;
  };

  // Throws Error kInvalidArgument (names the field) or kUnimplemented (another model type, dropout, subword prefixes).
  explicit Bpe(const JsonField& model);

  // Appends the ids of a word (valid UTF-8, less than 2 GiB). O(n log n). A character that neither the vocabulary nor
  // the byte tokens nor an unknown-token cover gives nothing, as in the reference implementation.
  void encode(std::string_view word, Session& session, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  // Characters below this have their own table: it covers the byte-level alphabet.
  static constexpr size_t kDirectCharacters = 0x180;

  void read_vocabulary(const JsonField& field);
  void read_merges(const JsonField& field);
  void read_byte_tokens();
  void split_to_symbols(std::string_view word, std::vector<Session::Symbol>& symbols) const;
  void merge_symbols(Session& session) const;
  void offer(Session& session, int32_t left) const;

  Vocabulary vocabulary_;
  MergeTable merges_{0};
  std::array<TokenId, kDirectCharacters> direct_{};  // -1: not in the vocabulary
  std::optional<std::array<TokenId, 256>> byte_tokens_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace scd
