// What takes the GPU long to make is kept by the thread that used it.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "kernels/kept.h"

namespace scd {

template <class T>
kernels::Kept<std::unique_ptr<T>>& unused_of_thread() {
  thread_local kernels::Kept<std::unique_ptr<T>> all(kernels::kMostKeptBytes);
  return all;
}

// One that was made on this thread for something as large, up to a power of two, and is no longer used; or a new one.
// It is kept again at its end, which is to be on the same thread: work there is queued in order, so it may be used
// again at once. T has bytes(): what memory it holds.
template <class T>
std::shared_ptr<T> reused(size_t for_bytes) {
  size_t size = kernels::kept_size(for_bytes);
  std::unique_ptr<T> one;
  if (auto found = unused_of_thread<T>().take(size)) {
    one = std::move(found->one);
    size = found->size;
  } else {
    one = std::make_unique<T>();
  }
  return {one.release(), [size](T* used) {
            const size_t bytes = used->bytes();
            unused_of_thread<T>().keep(std::unique_ptr<T>(used), size, bytes);
          }};
}

}  // namespace scd
