// A tokenizer for checkpoints that have none: tests and `scd make-model` serve text with it.
#pragma once

#include <string>

namespace scd {

inline constexpr int kByteTokenizerMinVocab = 259;

// The text of a tokenizer.json: ids 0..2 are <unk>, <s>, </s>, then the 256 bytes (byte b is id 3 + b), then tokens of
// two lower-case letters or of a space and a letter ("th", " a") and, beyond those, reserved special tokens, up to
// exactly `vocab_size`. <s> is put before the text. Throws Error kInvalidArgument below kByteTokenizerMinVocab.
std::string make_byte_tokenizer_json(int vocab_size);

}  // namespace scd
