// What takes the GPU long to make is kept by the thread that used it.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace scd {

template <class T>
std::vector<std::unique_ptr<T>>& unused_of_thread() {
  thread_local std::vector<std::unique_ptr<T>> all;
  return all;
}

// One that was made on this thread and is no longer used, or a new one. It is kept again at its end, which is to be on
// the same thread: work there is queued in order, so it may be used again at once.
template <class T>
std::shared_ptr<T> reused() {
  constexpr size_t kMostUnused = 4;  // as many units are coded at a time
  std::unique_ptr<T> one;
  if (unused_of_thread<T>().empty()) {
    one = std::make_unique<T>();
  } else {
    one = std::move(unused_of_thread<T>().back());
    unused_of_thread<T>().pop_back();
  }
  return {one.release(), [](T* used) {
            std::unique_ptr<T> last(used);
            if (unused_of_thread<T>().size() < kMostUnused) unused_of_thread<T>().push_back(std::move(last));
          }};
}

}  // namespace scd
