// Start-up work that a device's memory may not suffice for.
#pragma once

#include <new>
#include <string>
#include <utility>

#include "common/base/error.h"

namespace scd {

// What memory is for, "weights of the model /models/a", and what to do where there is too little.
struct MemoryUse {
  std::string what;
  std::string advice;
};

// Of a server that loads its model.
inline MemoryUse weights_of(const std::string& directory) {
  return {"the weights of the model " + directory,
          "take a smaller model, model.precision: bf16 or a larger device, or lower kv_cache.gpu_memory_fraction of "
          "another server on it"};
}

// What `work` returns. Where it finds no memory: RESOURCE_EXHAUSTED with the use, the numbers and the advice.
template <class Work>
decltype(auto) needing_memory(const MemoryUse& use, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const std::bad_alloc& error) {
    throw Error(ErrorCode::kResourceExhausted, "no memory for " + use.what + " (" + error.what() + "); " + use.advice);
  }
}

}  // namespace scd
