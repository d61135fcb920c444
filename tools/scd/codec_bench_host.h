// The host's entropy coder in the place of the GPU's: the codes of a prompt come over the bus, all cores code them
// chunk by chunk, read them again, and they go back.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/codec/rd/rd_quantiser.h"
#include "kernels/device.h"
#include "kernels/grow_buffer.h"
#include "kernels/matrix.h"

namespace scd {

class CodecBenchHost {
 public:
  // quantiser must stay.
  CodecBenchHost(const RdQuantiser& quantiser, int32_t level) : quantiser_(quantiser), level_(level) {}

  // Codes of a unit, [components, tokens] F32 on the GPU, which must stay; the tokens of its chunks.
  void add(size_t unit, kernels::ConstMatrix codes, const std::vector<int64_t>& chunk_tokens);

  // One after the other, of all that was added.
  void fetch();      // codes to page-locked memory
  void code();       // codes to bodies of payloads
  void read();       // bodies to codes; throws Error kInternal where one is not sound
  void send_back();  // what was read to the GPU, F32

  // By unit, then by chunk, as they were added.
  const std::vector<ByteBuffer>& bodies() const { return bodies_; }

 private:
  struct Unit {
    kernels::ConstMatrix on_device;
    kernels::Matrix coded, read;  // page-locked
  };
  struct Chunk {
    size_t place;  // in units_
    int32_t unit;  // of the quantiser
    int64_t first, tokens;
  };

  const RdQuantiser& quantiser_;
  const int32_t level_;
  std::deque<kernels::HostStaging> memory_;
  kernels::GrowBuffer returned_;
  std::vector<Unit> units_;
  std::vector<Chunk> chunks_;
  std::vector<ByteBuffer> bodies_;  // by chunk
};

}  // namespace scd
