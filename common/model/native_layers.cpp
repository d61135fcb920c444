#include "common/model/native_layers.h"

#include <algorithm>

#include "common/base/check.h"

namespace scd {

NativeLayers::NativeLayers(Args args) : args_(args), done_tokens_(args.first_token) {
  SCD_CHECK(
      args_.layers >= 1 && args_.first_layer >= 0 && args_.first_layer + args_.layers <= args_.model.config().layers,
      "layers of the model");
  if (args_.keep_anchor) {
    anchors_ = anchors_memory_.matrix(std::ssize(args_.tokens), args_.model.config().hidden, kernels::DType::kF32,
                                      args_.model.device());
  }
}

SequenceChunk NativeLayers::chunk(int64_t count) const {
  SCD_CHECK(!running() && count > 0 && done_tokens_ + count <= std::ssize(args_.tokens), "the next tokens");
  return {&args_.pages, done_tokens_,
          args_.tokens.subspan(static_cast<size_t>(done_tokens_), static_cast<size_t>(count)), args_.adapter};
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
    const kernels::ConstMatrix stream = pass_->hidden_state_on_device();
    kernels::Matrix to = anchors_;
    to.data = anchors_.row<float>(done_tokens_);
    to.rows = stream.rows;
    kernels::copy(stream, to);
  }
  pass_->run_keys_values_only();
  done_tokens_ += pass_->rows();
  pass_.reset();
}

kernels::ConstMatrix NativeLayers::anchor(int64_t first_token, int64_t count) const {
  SCD_CHECK(args_.keep_anchor && first_token >= 0 && first_token + count <= done_tokens_, "tokens that are done");
  kernels::ConstMatrix rows = anchors_;
  rows.data = anchors_.row<float>(first_token);
  rows.rows = count;
  return rows;
}

}  // namespace scd
