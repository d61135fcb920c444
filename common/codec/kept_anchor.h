// What a codec on a GPU makes of an anchor's rows, kept for all units that are coded or predicted from the same one:
// the rows over their root mean square.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>

#include "kernels/grow_buffer.h"
#include "kernels/matrix.h"

namespace scd {

// Belongs to whoever has the anchor; one codec at a time fills and reads it. Memory of those that end on the thread
// they were filled on is used again there: a GPU's is dear to ask for, and what is queued comes before what follows.
class KeptAnchor {
 public:
  KeptAnchor();
  // Of an anchor whose rows are tokens [first_token, first_token + tokens).
  KeptAnchor(int64_t first_token, int64_t tokens) : KeptAnchor() { restart(first_token, tokens); }
  // The same of another anchor; memory is kept. room: memory of the caller's to be used instead, as far as it suffices,
  // which outlives what is done with the rows.
  void restart(int64_t first_token, int64_t tokens, const kernels::Matrix& room = {});

  // Rows of `anchor`, whose first is `first_token`, F32 or BF16 where the anchor is. `room`: columns that the rows have
  // behind them at least, a multiple of 8 from one to the next: zeros up to a multiple of 8, then undefined.
  kernels::Matrix rows(const kernels::ConstMatrix& anchor, int64_t first_token, kernels::DType dtype, int64_t room = 0);

 private:
  struct Spare {
    std::thread::id thread;
    void operator()(kernels::GrowBuffer* memory) const;
  };
  kernels::Matrix take_memory(kernels::Device device, int64_t stride, kernels::DType dtype);

  int64_t first_token_ = 0;
  int64_t tokens_ = 0;
  kernels::Matrix room_;
  std::unique_ptr<kernels::GrowBuffer, Spare> memory_;
  kernels::Matrix all_;
  int64_t done_begin_ = 0, done_end_ = 0;  // tokens whose rows are there
};

}  // namespace scd
