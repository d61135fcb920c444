// What a thread no longer uses and is slow to make anew: memory of a GPU, page-locked memory of the host.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace scd::kernels {

inline constexpr size_t kMostKeptBytes = size_t{1} << 30;  // of a kind: the units that a long prompt has under way

// What is made for so many bytes: a power of two, so that it serves others of about the size.
inline size_t kept_size(size_t bytes) {
  constexpr size_t kSmallest = size_t{1} << 16;
  return std::bit_ceil(std::max(bytes, kSmallest));
}

// Not thread-safe.
template <class T>
class Kept {
 public:
  struct Entry {
    T one;
    size_t size = 0;   // it was made for
    size_t bytes = 0;  // it takes
  };

  explicit Kept(size_t most_bytes) : most_bytes_(most_bytes) {}

  // The smallest that has the size, without wasting more than it gives; none: there is no such.
  std::optional<Entry> take(size_t size) {
    auto best = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->size < size || it->size / 2 > size) continue;
      if (best == entries_.end() || it->size < best->size) best = it;
    }
    if (best == entries_.end()) return std::nullopt;
    return out(best);
  }

  // Where all are more than may be kept, those go that were kept the longest.
  void keep(T one, size_t size, size_t bytes) {
    if (bytes > most_bytes_) return;
    while (bytes_ + bytes > most_bytes_) out(entries_.begin());
    entries_.push_back({std::move(one), size, bytes});
    bytes_ += bytes;
  }

  void clear() {
    entries_.clear();
    bytes_ = 0;
  }

  size_t bytes() const { return bytes_; }

 private:
  Entry out(typename std::vector<Entry>::iterator which) {
    Entry found = std::move(*which);
    entries_.erase(which);
    bytes_ -= found.bytes;
    return found;
  }

  size_t most_bytes_;
  size_t bytes_ = 0;
  std::vector<Entry> entries_;  // the oldest first
};

}  // namespace scd::kernels
