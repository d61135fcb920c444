#include "common/model/native_layers.h"

#include <algorithm>

#include "common/base/check.h"

namespace scd {

NativeLayers::NativeLayers(Args args) : args_(args), done_tokens_(args.first_token) {
  SCD_CHECK(
      args_.layers >= 1 && args_.first_layer >= 0 && args_.first_layer + args_.layers <= args_.model.config().layers,
      "layers of the model");
  if (args_.keep_anchor) anchors_.resize(args_.tokens.size() * static_cast<size_t>(args_.model.config().hidden));
}

SequenceChunk NativeLayers::chunk(int64_t count) const {
  SCD_CHECK(!running() && count > 0 && done_tokens_ + count <= std::ssize(args_.tokens), "the next tokens");
  return {&args_.pages, done_tokens_,
          args_.tokens.subspan(static_cast<size_t>(done_tokens_), static_cast<size_t>(count))};
}

void NativeLayers::begin(int64_t count) {
  SCD_CHECK(args_.first_layer == 0, "token ids lead to layer 0");
  const SequenceChunk tokens = chunk(count);
  pass_ = std::make_unique<ForwardPass>(args_.model, args_.cache, std::span(&tokens, 1));
}

void NativeLayers::begin(kernels::ConstMatrix residual) {
  const SequenceChunk tokens = chunk(residual.rows);
  pass_ = std::make_unique<ForwardPass>(args_.model, args_.cache, std::span(&tokens, 1), args_.first_layer, residual);
}

void NativeLayers::run_layer() {
  SCD_CHECK(running(), "a chunk was begun");
  if (pass_->next_layer() + 1 < args_.first_layer + args_.layers) {
    pass_->run_layer();
    return;
  }
  if (args_.keep_anchor) {
    const kernels::ConstMatrix stream = pass_->hidden_state();
    for (int64_t row = 0; row < stream.rows; ++row) {
      std::copy_n(stream.row<float>(row), stream.columns, anchors_.data() + (done_tokens_ + row) * stream.columns);
    }
  }
  pass_->run_keys_values_only();
  done_tokens_ += pass_->rows();
  pass_.reset();
}

kernels::ConstMatrix NativeLayers::anchor(int64_t first_token, int64_t count) const {
  SCD_CHECK(args_.keep_anchor && first_token >= 0 && first_token + count <= done_tokens_, "tokens that are done");
  const int64_t hidden = args_.model.config().hidden;
  return kernels::matrix(anchors_.data() + first_token * hidden, count, hidden);
}

}  // namespace scd
