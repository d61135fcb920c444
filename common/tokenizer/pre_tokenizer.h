// The pre-tokenizer of a tokenizer.json: cuts normalized text into the words that BPE works on one by one.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/json_field.h"

namespace scd {

struct Piece {
  std::string_view text;
  bool at_start = false;  // starts where the whole input starts
};

// The pieces of one text. Steps that change characters keep what they wrote in `storage`: the views stay valid as long
// as the list lives.
struct PieceList {
  std::vector<Piece> pieces;
  std::deque<std::string> storage;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(PieceList& list) const = 0;  // leaves no empty pieces
};

// Reads ByteLevel, Split, Digits, Metaspace and Sequence of these; anything else is refused by name.
std::unique_ptr<const PreTokenizer> read_pre_tokenizer(const JsonField& field);

}  // namespace scd
