#include "common/codec/kept_anchor.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "kernels/device.h"
#include "kernels/rms_norm.h"

namespace scd {
namespace {

constexpr int64_t kAligned = 8;  // 16 bytes of the narrowest, as products want rows to begin

int64_t aligned(int64_t columns) { return (columns + kAligned - 1) / kAligned * kAligned; }

constexpr size_t kMostSpare = 4;

std::vector<std::unique_ptr<kernels::GrowBuffer>>& spare() {
  thread_local std::vector<std::unique_ptr<kernels::GrowBuffer>> all;
  return all;
}

std::unique_ptr<kernels::GrowBuffer> taken() {
  if (spare().empty()) return std::make_unique<kernels::GrowBuffer>();
  std::unique_ptr<kernels::GrowBuffer> last = std::move(spare().back());
  spare().pop_back();
  return last;
}

}  // namespace

KeptAnchor::KeptAnchor() { spare(); }  // which outlives it on its thread

void KeptAnchor::Spare::operator()(kernels::GrowBuffer* memory) const {
  std::unique_ptr<kernels::GrowBuffer> kept(memory);
  if (thread == std::this_thread::get_id() && spare().size() < kMostSpare) spare().push_back(std::move(kept));
}

void KeptAnchor::restart(int64_t first_token, int64_t tokens, const kernels::Matrix& room) {
  first_token_ = first_token;
  tokens_ = tokens;
  room_ = room;
  all_ = {};
  done_begin_ = done_end_ = 0;
}

kernels::Matrix KeptAnchor::take_memory(kernels::Device device, int64_t stride, kernels::DType dtype) {
  const auto bytes = [](int64_t rows, int64_t columns, kernels::DType of) {
    return static_cast<size_t>(rows * columns) * kernels::size_of(of);
  };
  if (room_.data != nullptr && room_.device == device &&
      bytes(tokens_, stride, dtype) <= bytes(room_.rows, room_.row_stride, room_.dtype)) {
    return {room_.data, tokens_, stride, stride, dtype, device};
  }
  if (memory_ == nullptr) memory_ = {taken().release(), Spare{std::this_thread::get_id()}};
  return memory_->matrix(tokens_, stride, dtype, device);
}

kernels::Matrix KeptAnchor::rows(const kernels::ConstMatrix& anchor, int64_t first_token, kernels::DType dtype,
                                 int64_t room) {
  const int64_t end = first_token + anchor.rows, width = anchor.columns, stride = aligned(width) + aligned(room);
  SCD_CHECK(first_token >= first_token_ && end <= first_token_ + tokens_, "tokens of the anchor");
  if (all_.data == nullptr || all_.dtype != dtype || all_.device != anchor.device || all_.columns != width ||
      all_.row_stride < stride) {
    all_ = take_memory(anchor.device, stride, dtype);
    if (width % kAligned != 0) kernels::clear(all_);
    all_.columns = width;
    done_begin_ = done_end_ = 0;
  }
  kernels::Matrix found = all_;
  found.rows = anchor.rows;
  found.data = dtype == kernels::DType::kF32 ? static_cast<void*>(all_.row<float>(first_token - first_token_))
                                             : static_cast<void*>(all_.row<uint16_t>(first_token - first_token_));
  if (first_token >= done_begin_ && end <= done_end_) return found;
  kernels::divide_by_rms(anchor, anchor, found);
  const bool joins = done_begin_ < done_end_ && first_token <= done_end_ && end >= done_begin_;
  done_begin_ = joins ? std::min(done_begin_, first_token) : first_token;
  done_end_ = joins ? std::max(done_end_, end) : end;
  return found;
}

}  // namespace scd
