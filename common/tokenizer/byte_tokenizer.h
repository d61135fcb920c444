// A tokenizer for checkpoints that have none: tests and `scd make-model` serve text with it.
#pragma once

#include <string>

namespace scd {

inline constexpr int kByteTokenizerMinVocab = 259;
inline constexpr int kByteTokenizerMaxVocab = 1 << 20;

// The text of a tokenizer.json of exactly `vocab_size` tokens: ids 0..2 are <unk>, <s>, </s>, byte b is id 3 + b, then
// " a" to " z", "aa" to "zz", "aaa" and on, as far as they go. Encoding puts <s> before the text. Throws Error
// kInvalidArgument where the size is not within [kByteTokenizerMinVocab, kByteTokenizerMaxVocab].
std::string make_byte_tokenizer_json(int vocab_size);

}  // namespace scd
