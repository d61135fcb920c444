// Text to token ids and back, as a Hugging Face tokenizer.json describes it: BPE models with their normalizers,
// pre-tokenizers, added tokens, post-processors and decoders. What this reader does not know it refuses by name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/token.h"

namespace scd {

class DecodeChain;

struct EncodeOptions {
  // Add what the post-processor adds around the text (BOS, EOS). Off: the ids of the text alone.
  bool add_special_tokens = true;
  // Recognise special tokens ("<|im_start|>") written in the text. Off: they are ordinary characters, so that text of
  // unknown origin cannot forge control tokens. Added tokens that are not special are part of the vocabulary: always
  // recognised.
  bool parse_special = true;
};

// Immutable after loading: every const method may be called from any number of threads at once.
class Tokenizer {
 public:
  // Throws Error: kNotFound (no such file), kInvalidArgument (broken file; names the field), kUnimplemented (a feature
  // of the format this reader does not know; names feature and file).
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Throws Error kInvalidArgument, with the byte offset, where the text is not valid UTF-8.
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;

  // Always valid UTF-8: bytes that form no character become U+FFFD. Ids without a token decode to nothing, since models
  // pad their vocabularies. Text that grows token by token: see streaming_detokenizer.h.
  std::string decode(std::span<const TokenId> ids, bool skip_special = false) const;

  size_t vocab_size() const;           // largest id + 1, added tokens included
  size_t longest_token_bytes() const;  // as written in the vocabulary; at least 1
  std::optional<TokenId> token_to_id(std::string_view token) const;
  std::string_view id_to_token(TokenId id) const;  // as written in the vocabulary ("Ġthe"); empty where there is none
  bool is_special(TokenId id) const;
  const Sha256Digest& fingerprint() const;  // SHA-256 of the file's bytes

 private:
  friend class StreamingDetokenizer;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  const DecodeChain& decode_chain() const;

  std::unique_ptr<const Parts> parts_;
};

}  // namespace scd
