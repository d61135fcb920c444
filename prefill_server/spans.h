// When the parts of a job ran. Thread-safe; bounded: beyond kMaxSpans a part's last span is stretched instead.
#pragma once

#include <mutex>
#include <vector>

#include "prefill_server/handover.h"

namespace scd {

enum class PrefillPart : uint8_t { kQueue, kPrefill, kEncode, kWire };

struct PrefillSpan {
  PrefillPart part;
  PrefillClock::time_point start;
  PrefillClock::time_point end;
};

class SpanLog {
 public:
  static constexpr size_t kMaxSpans = 4096;

  void add(PrefillSpan span);
  // Of a span of kPrefill, which steps of several prompts share: what the job's own tokens took.
  void add_computed(PrefillClock::duration time);
  PrefillClock::duration computed() const;
  std::vector<PrefillSpan> sorted() const;  // by start
  // Sum of a part's spans, overlaps counted twice.
  PrefillClock::duration total(PrefillPart part) const;

 private:
  mutable std::mutex mutex_;
  std::vector<PrefillSpan> spans_;
  PrefillClock::duration computed_{};
};

}  // namespace scd
