// `rd` with a rate per token, for measuring (token_rates.h): maps, deviations and tables are the codec's own. Both
// sides read the classes of tokens where they stand; in a payload they take as many bytes as they need at least.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/codec/rd/rd_codec.h"
#include "tools/scd/token_rates.h"

namespace scd {

// The coder of RdQuantiser with a step for each token: a component is sent of the tokens at whose step it is worth it.
class TokenRateQuantiser {
 public:
  // Settings as RdQuantiser takes them.
  explicit TokenRateQuantiser(RdQuantiserSettings settings);

  const std::vector<std::vector<float>>& deviations() const { return settings_.deviations; }
  int64_t components(size_t unit) const { return std::ssize(settings_.deviations[unit]); }
  // Those that a level sends of tokens of one class.
  int64_t components(size_t unit, int32_t level, int8_t token_class) const;
  // values [components, tokens] -> a body as RdQuantiser's in its rANS form, a row's tokens by rising class, and behind
  // it zeros for the classes: their entropy in this body, rounded up.
  void encode(size_t unit, int32_t level, std::span<const int8_t> classes, kernels::ConstMatrix values,
              ByteBuffer& out) const;
  // The reverse; what was not sent is 0. The body is what encode() made.
  void decode(size_t unit, int32_t level, std::span<const int8_t> classes, std::span<const std::byte> body,
              kernels::Matrix values) const;

 private:
  float step(int32_t level, int8_t token_class) const;

  RdQuantiserSettings settings_;
  std::vector<RansTable> tables_;
};

// An encoder and a decoder that know the classes of one window's tokens.
class TokenRateCodec {
 public:
  // What it refers to must outlive it.
  struct Args {
    const RdEncoder& encoder;
    const RdDecoder& decoder;
    const RdQuantiserSettings& quantiser;  // theirs
    TokenRates::Args rates;
  };
  explicit TokenRateCodec(const Args& args);
  ~TokenRateCodec();
  TokenRateCodec(const TokenRateCodec&) = delete;
  TokenRateCodec& operator=(const TokenRateCodec&) = delete;

  // For rates that are learned: from windows that are not measured. Others need none.
  void learn(std::span<const TokenWindow> windows);
  void set_window(const TokenWindow& window);
  const Encoder& encoder() const;
  const Decoder& decoder() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace scd
