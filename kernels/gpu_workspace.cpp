#include "kernels/gpu_workspace.h"

#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "kernels/require.h"

namespace scd::kernels {

FreeStretches::FreeStretches(size_t bytes) : free_bytes_(bytes) {
  if (bytes > 0) stretches_.emplace(0, bytes);
}

std::optional<size_t> FreeStretches::take(size_t bytes) {
  auto best = stretches_.end();
  for (auto it = stretches_.begin(); it != stretches_.end(); ++it) {
    if (it->second >= bytes && (best == stretches_.end() || it->second < best->second)) best = it;
  }
  if (best == stretches_.end()) return std::nullopt;
  const auto [begin, size] = *best;
  if (size > bytes) stretches_.emplace(begin + bytes, size - bytes);
  auto part = stretches_.extract(best);
  part.mapped() = bytes;
  taken_.insert(std::move(part));
  free_bytes_ -= bytes;
  return begin;
}

void FreeStretches::give_back(size_t begin) {
  auto stretch = taken_.extract(begin);
  require(!stretch.empty(), "memory is given back twice");
  free_bytes_ += stretch.mapped();
  const auto behind = stretches_.lower_bound(begin);
  if (behind != stretches_.begin()) {
    const auto before = std::prev(behind);
    if (before->first + before->second == begin) {
      stretch.key() = before->first;
      stretch.mapped() += before->second;
      stretches_.erase(before);
    }
  }
  if (behind != stretches_.end() && stretch.key() + stretch.mapped() == behind->first) {
    stretch.mapped() += behind->second;
    stretches_.erase(behind);
  }
  stretches_.insert(std::move(stretch));
}

struct GpuWorkspace::Piece {
  explicit Piece(size_t bytes) : memory(Device::kGpu, bytes), stretches(bytes) {}

  std::optional<size_t> take(size_t bytes) {
    const std::scoped_lock lock(mutex);
    return stretches.take(bytes);
  }
  void give_back(size_t begin) {
    const std::scoped_lock lock(mutex);
    stretches.give_back(begin);
  }

  DeviceBuffer memory;
  std::mutex mutex;
  FreeStretches stretches;
};

struct GpuWorkspace::OfProcess {
  std::mutex mutex;
  std::vector<std::shared_ptr<Piece>> pieces;
};

// Never destroyed: threads give parts back as late as the process ends.
GpuWorkspace::OfProcess& GpuWorkspace::of_process() {
  static auto* const all = new OfProcess;
  return *all;
}

GpuWorkspace::GpuWorkspace(size_t bytes) {
  if (bytes == 0) return;
  piece_ = std::make_shared<Piece>(part_bytes(bytes));
  OfProcess& all = of_process();
  const std::scoped_lock lock(all.mutex);
  all.pieces.push_back(piece_);
}

GpuWorkspace::~GpuWorkspace() {
  if (piece_ == nullptr) return;
  OfProcess& all = of_process();
  const std::scoped_lock lock(all.mutex);
  std::erase(all.pieces, piece_);
}

size_t GpuWorkspace::bytes() const { return piece_ == nullptr ? 0 : piece_->memory.size(); }

size_t GpuWorkspace::used_bytes() const {
  if (piece_ == nullptr) return 0;
  const std::scoped_lock lock(piece_->mutex);
  return piece_->memory.size() - piece_->stretches.free_bytes();
}

std::optional<GpuWorkspace::Part> GpuWorkspace::part(size_t bytes) {
  OfProcess& all = of_process();
  const std::scoped_lock lock(all.mutex);
  for (const std::shared_ptr<Piece>& piece : all.pieces) {
    const std::optional<size_t> begin = piece->take(part_bytes(bytes));
    if (!begin) continue;
    std::byte* const data = piece->memory.data() + *begin;
    const auto give_back = [piece, begin = *begin](void*) {
      finish_gpu_work();  // what uses the part was queued by this thread, or has been waited for
      piece->give_back(begin);
    };
    return Part{data, std::shared_ptr<void>(data, give_back)};
  }
  return std::nullopt;
}

}  // namespace scd::kernels
