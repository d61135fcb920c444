#include "kernels/device.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "kernels/dispatch.h"
#include "kernels/gpu_workspace.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

constexpr size_t kAlignment = 4096;

std::byte* allocate_on_host(size_t bytes) {
  // Untouched pages cost nothing until written, so a large pool starts cheaply.
  void* memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (memory == nullptr) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

// Of the GPU, in all buffers; relaxed: it orders nothing.
std::atomic<size_t> held_bytes{0};

}  // namespace

size_t gpu_held_bytes() { return held_bytes.load(std::memory_order_relaxed); }

#ifndef SCD_CUDA
const GpuDevice& gpu_device() {
  static const GpuDevice none{.reason = "this build has no CUDA (configure with -DSCD_CUDA=ON where nvcc is)"};
  return none;
}
DeviceMemory gpu_memory() { throw std::runtime_error("device cuda: " + gpu_device().reason); }
void use_gpu_device(int ordinal) {
  throw std::runtime_error("device cuda:" + std::to_string(ordinal) + ": " + gpu_device().reason);
}
#endif

void synchronize([[maybe_unused]] Device device) {
#ifdef SCD_CUDA
  if (device == Device::kGpu) cuda::synchronize();
#endif
}

void finish_gpu_work() noexcept { SCD_ON(Device::kGpu, cuda::finish_work(), static_cast<void>(0)); }

struct Placement::Arena {
  DeviceBuffer memory;
  size_t used = 0;
};

Placement Placement::arena(Device device, size_t bytes) {
  Placement placement(device);
  placement.arena_ = std::make_shared<Arena>(DeviceBuffer(device, part_bytes(bytes)));
  return placement;
}

Placement Placement::workspace(Device device) {
  Placement placement(device);
  placement.in_workspace_ = device == Device::kGpu;
  return placement;
}

size_t Placement::arena_bytes(std::span<const size_t> buffers) {
  size_t bytes = 0;
  for (const size_t size : buffers) bytes += part_bytes(size);
  return bytes;
}

size_t Placement::left() const { return arena_ == nullptr ? 0 : arena_->memory.size() - arena_->used; }

std::byte* Placement::part(size_t bytes) const {
  const size_t taken = part_bytes(bytes);
  require(taken <= left(), "an arena with ", static_cast<int64_t>(left()), " bytes left has no room for ",
          static_cast<int64_t>(bytes));
  return arena_->memory.data() + std::exchange(arena_->used, arena_->used + taken);
}

DeviceBuffer::DeviceBuffer(const Placement& placement, size_t bytes) : size_(bytes), device_(placement.device()) {
  require_device_in_build(device_);
  if (bytes == 0) return;
  if (placement.arena_ != nullptr) {
    data_ = placement.part(bytes);
    owner_ = placement.arena_;
    return;
  }
  if (placement.in_workspace_) {
    if (auto part = GpuWorkspace::part(bytes)) {
      data_ = part->data;
      owner_ = std::move(part->owner);
      return;
    }
  }
  data_ = SCD_ON(device_, cuda::allocate(bytes), allocate_on_host(bytes));
  if (device_ == Device::kGpu) held_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      device_(other.device_),
      owner_(std::move(other.owner_)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(device_, other.device_);
  std::swap(owner_, other.owner_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ == nullptr || owner_ != nullptr) return;
  SCD_ON(device_, cuda::release(data_), std::free(data_));
  if (device_ == Device::kGpu) held_bytes.fetch_sub(size_, std::memory_order_relaxed);
}

DeviceBuffer DeviceBuffer::shared() const {
  require(owner_ != nullptr, "memory outside an arena has one owner");
  DeviceBuffer same;
  same.data_ = data_;
  same.size_ = size_;
  same.device_ = device_;
  same.owner_ = owner_;
  return same;
}

void grow(DeviceBuffer& buffer, Device device, size_t bytes) {
  if (buffer.size() >= bytes) return;
  buffer = DeviceBuffer();
  buffer = DeviceBuffer(Placement::workspace(device), bytes);
}

HostStaging::~HostStaging() {
  if (memory_ != nullptr) SCD_ON(Device::kGpu, cuda::release_pinned(memory_), std::free(memory_));
}

Matrix HostStaging::matrix(int64_t rows, int64_t columns, DType dtype) {
  const size_t bytes = static_cast<size_t>(rows * columns) * size_of(dtype);
  if (bytes > size_) {
    if (memory_ != nullptr) SCD_ON(Device::kGpu, cuda::release_pinned(memory_), std::free(memory_));
    memory_ = nullptr;
    size_ = 0;
    const size_t wanted = bytes + bytes / 4;
    memory_ = SCD_ON(Device::kGpu, cuda::allocate_pinned(wanted), allocate_on_host(wanted));
    size_ = wanted;
  }
  return {memory_, rows, columns, columns, dtype};
}

DeviceBuffer buffer_of(std::span<const std::byte> bytes, const Placement& placement) {
  DeviceBuffer buffer(placement, bytes.size());
  if (bytes.empty()) return buffer;
#ifdef SCD_CUDA
  if (placement.device() == Device::kGpu) cuda::copy_bytes(bytes, buffer.data());
#endif
  if (placement.device() == Device::kCpu) std::ranges::copy(bytes, buffer.data());
  return buffer;
}

DeviceVector::DeviceVector(std::span<const float> values, const Placement& placement)
    : memory_(buffer_of(std::as_bytes(values), placement)), size_(values.size()) {}

std::vector<float> DeviceVector::on_host() const {
  std::vector<float> values(size_);
  const auto count = static_cast<int64_t>(size_);
  copy({memory_.data(), 1, count, count, DType::kF32, device()}, matrix(values.data(), 1, count));
  return values;
}

RecordedWork::RecordedWork(RecordedWork&& other) noexcept { *this = std::move(other); }

RecordedWork& RecordedWork::operator=(RecordedWork&& other) noexcept {
  std::swap(graph_, other.graph_);
  std::swap(scratch_slots_, other.scratch_slots_);
  std::swap(scratch_moves_, other.scratch_moves_);
  return *this;
}

RecordedWork::~RecordedWork() { SCD_ON(Device::kGpu, cuda::release_graph(graph_), static_cast<void>(0)); }

void RecordedWork::record([[maybe_unused]] const std::function<void()>& work) {
  require_device_in_build(Device::kGpu);
#ifdef SCD_CUDA
  cuda::release_graph(std::exchange(graph_, nullptr));
  const cuda::Recording made = cuda::record(work);
  graph_ = made.graph;
  scratch_slots_ = made.scratch_slots;
  scratch_moves_ = cuda::scratch_moves(scratch_slots_);
#endif
}

bool RecordedWork::replayable() const {
  return graph_ != nullptr && scratch_moves_ == SCD_ON(Device::kGpu, cuda::scratch_moves(scratch_slots_), 0);
}

void RecordedWork::replay() const {
  require(replayable(), "nothing recorded that can be replayed");
  SCD_ON(Device::kGpu, cuda::replay(graph_), static_cast<void>(0));
}

void send(std::span<const int32_t> numbers, [[maybe_unused]] Device device, std::byte* to) {
  SCD_ON(device, cuda::upload(numbers, to), static_cast<void>(std::ranges::copy(std::as_bytes(numbers), to)));
}

void clear(Matrix m) {
  require_matrix(m, "the target of clear");
  if (m.rows == 0 || m.columns == 0) return;
#ifdef SCD_CUDA
  if (m.device == Device::kGpu) return cuda::clear(m);
#endif
  const size_t size = size_of(m.dtype);
  for (int64_t row = 0; row < m.rows; ++row) {
    std::memset(static_cast<std::byte*>(m.data) + static_cast<size_t>(row * m.row_stride) * size, 0,
                static_cast<size_t>(m.columns) * size);
  }
}

void copy(ConstMatrix from, Matrix to) {
  require_matrix(from, "the source of copy");
  require_matrix(to, "the target of copy");
  require(from.rows == to.rows && from.columns == to.columns && from.dtype == to.dtype, "copy: the target ", to,
          " must have the shape and dtype of the source ", from);
  if (from.rows == 0 || from.columns == 0) return;
  if (from.device == Device::kGpu || to.device == Device::kGpu) {
    SCD_ON(Device::kGpu, cuda::copy(from, to), static_cast<void>(0));
    return;
  }
  const size_t size = size_of(from.dtype);
  for (int64_t row = 0; row < from.rows; ++row) {
    std::memcpy(static_cast<std::byte*>(to.data) + static_cast<size_t>(row * to.row_stride) * size,
                static_cast<const std::byte*>(from.data) + static_cast<size_t>(row * from.row_stride) * size,
                static_cast<size_t>(from.columns) * size);
  }
}

}  // namespace scd::kernels
