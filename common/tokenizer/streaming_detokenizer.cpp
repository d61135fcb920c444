#include "common/tokenizer/streaming_detokenizer.h"

#include "common/tokenizer/decoder.h"

namespace scd {

struct StreamingDetokenizer::State {
  explicit State(const DetokenizeOptions& options) {
    decode.is_first = !options.continues_text;
    decode.front_done = options.continues_text;
  }
  DecodeChain::State decode;
};

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, DetokenizeOptions options)
    : tokenizer_(&tokenizer), options_(options), state_(std::make_unique<State>(options)) {}
StreamingDetokenizer::StreamingDetokenizer(StreamingDetokenizer&&) noexcept = default;
StreamingDetokenizer& StreamingDetokenizer::operator=(StreamingDetokenizer&&) noexcept = default;
StreamingDetokenizer::~StreamingDetokenizer() = default;

std::string StreamingDetokenizer::push(TokenId id) {
  std::string text;
  const std::string_view token = tokenizer_->id_to_token(id);
  if (token.empty() || (options_.skip_special && tokenizer_->is_special(id))) return text;
  tokenizer_->decode_chain().push(token, state_->decode, text);
  return text;
}

std::string StreamingDetokenizer::flush() {
  std::string text;
  tokenizer_->decode_chain().finish(state_->decode, text);
  *state_ = State(options_);
  return text;
}

}  // namespace scd
