// Memory of the device that ops run on, and the copies between devices.
// Work on CUDA is queued in the order of the calls, one queue for each thread: an op returns before it is done. Only
// synchronize() and copies to and from the host wait. What one thread queues and another reads needs such a wait
// between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/matrix.h"

namespace scd::kernels {

struct GpuDevice {
  bool usable = false;
  std::string reason;  // why not usable: no CUDA in this build, no driver, no GPU, too old a GPU
  std::string name = {};
  std::string pci_bus_id = {};  // "00000000:1b:00.0"
  int cuda_of_driver = 0;       // the newest CUDA that the driver serves: 13000 for 13.0
  int cuda_runtime = 0;         // that this program was built with
  int compute_capability = 0;   // 90 for 9.0
  int multiprocessors = 0;
  size_t memory_bytes = 0;
};

// The GPU of this process (CUDA_VISIBLE_DEVICES and use_gpu_device() choose it), looked at once.
const GpuDevice& gpu_device();

// Which GPU this process uses; before any other call that needs one. Throws std::runtime_error with the reason when it
// cannot be used.
void use_gpu_device(int ordinal);

// Waits for everything that this thread queued.
void synchronize(Device device);
// The same of a GPU, for destructors: never throws, and does nothing on a thread that has no queue or none any more.
void finish_gpu_work() noexcept;

struct DeviceMemory {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
};
// Of the GPU, as all processes leave it.
DeviceMemory gpu_memory();
// What this process has of it in buffers; the driver's own comes on top.
size_t gpu_held_bytes();

// A GPU's memory does not suffice; says what was asked for and what is free.
class OutOfDeviceMemory : public std::bad_alloc {
 public:
  explicit OutOfDeviceMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Where buffers are made: on a device each by itself or, as parts of an arena, in one piece of its memory, one behind
// the other. An arena's memory goes back with the last of its parts, and none of it before; one thread at a time takes
// from it. What steps work in comes from the memory set aside for it (gpu_workspace.h), and by itself where that has no
// room.
class Placement {
 public:
  Placement(Device device) : device_(device) {}  // by themselves; a device will do where a placement is asked for
  static Placement arena(Device device, size_t bytes);  // rounded up to what one buffer of them takes
  static Placement workspace(Device device);
  // Of an arena that holds buffers of these sizes.
  static size_t arena_bytes(std::span<const size_t> buffers);

  Device device() const { return device_; }
  size_t left() const;  // bytes of the arena

 private:
  friend class DeviceBuffer;
  struct Arena;
  std::byte* part(size_t bytes) const;
  Device device_;
  bool in_workspace_ = false;
  std::shared_ptr<Arena> arena_;
};

// Contents are undefined. Throws std::bad_alloc, of a GPU OutOfDeviceMemory; std::invalid_argument where an arena is
// full.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const Placement& placement, size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  // The same memory once more: of a part of an arena or workspace, which lives as long as either.
  DeviceBuffer shared() const;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  Device device() const { return device_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Device device_ = Device::kCpu;
  std::shared_ptr<void> owner_;  // of the arena or workspace that it is a part of
};

// A buffer of the workspace with so many bytes at least: where there are fewer, what it was goes before the new one
// comes, as peaks matter more than a copy that nobody needs.
void grow(DeviceBuffer& buffer, Device device, size_t bytes);

// Memory of the host for copies to and from a GPU: page-locked where there is one, several times as fast. It grows and
// is kept; contents are undefined after each call.
class HostStaging {
 public:
  HostStaging() = default;
  HostStaging(const HostStaging&) = delete;
  HostStaging& operator=(const HostStaging&) = delete;
  ~HostStaging();
  Matrix matrix(int64_t rows, int64_t columns, DType dtype = DType::kF32);
  size_t size() const { return size_; }

 private:
  std::byte* memory_ = nullptr;
  size_t size_ = 0;
};

// A copy of the bytes.
DeviceBuffer buffer_of(std::span<const std::byte> bytes, const Placement& placement);

// float[n] where the ops that read it run: norm weights, biases.
class DeviceVector {
 public:
  DeviceVector() = default;
  DeviceVector(std::span<const float> values, const Placement& placement);
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Device device() const { return memory_.device(); }
  std::vector<float> on_host() const;
  // Only ops on device() may read it.
  operator std::span<const float>() const { return {reinterpret_cast<const float*>(memory_.data()), size_}; }

 private:
  DeviceBuffer memory_;
  size_t size_ = 0;
};

// Work of this thread recorded once and replayed as one: a CUDA graph. Ops inside must have run before with the same
// shapes, and must neither wait nor touch the host.
class RecordedWork {
 public:
  RecordedWork() = default;
  RecordedWork(RecordedWork&& other) noexcept;
  RecordedWork& operator=(RecordedWork&& other) noexcept;
  ~RecordedWork();

  void record(const std::function<void()>& work);
  // Not before record(), and no longer once scratch memory that the recorded ops use has moved.
  bool replayable() const;
  void replay() const;

 private:
  void* graph_ = nullptr;
  uint32_t scratch_slots_ = 0;
  uint64_t scratch_moves_ = 0;
};

// Numbers to memory of the device. On CUDA the copy is queued, and they may change at once.
void send(std::span<const int32_t> numbers, Device device, std::byte* to);

// Zeros in every byte of its elements, F32 or 16 bits wide.
void clear(Matrix m);

// Same shape and dtype, any devices. Waits where one side is on the host: the bytes are there, or may be reused.
void copy(ConstMatrix from, Matrix to);

}  // namespace scd::kernels
