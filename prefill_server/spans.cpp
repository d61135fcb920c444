#include "prefill_server/spans.h"

#include <algorithm>

namespace scd {

void SpanLog::add(PrefillSpan span) {
  std::scoped_lock lock(mutex_);
  if (spans_.size() < kMaxSpans) {
    spans_.push_back(span);
    return;
  }
  const auto last =
      std::find_if(spans_.rbegin(), spans_.rend(), [&](const auto& old) { return old.part == span.part; });
  if (last != spans_.rend()) last->end = std::max(last->end, span.end);
}

void SpanLog::add_computed(PrefillClock::duration time) {
  std::scoped_lock lock(mutex_);
  computed_ += time;
}

PrefillClock::duration SpanLog::computed() const {
  std::scoped_lock lock(mutex_);
  return computed_;
}

std::vector<PrefillSpan> SpanLog::sorted() const {
  std::unique_lock lock(mutex_);
  std::vector<PrefillSpan> spans = spans_;
  lock.unlock();
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
  return spans;
}

PrefillClock::duration SpanLog::total(PrefillPart part) const {
  std::scoped_lock lock(mutex_);
  PrefillClock::duration sum{};
  for (const PrefillSpan& span : spans_) {
    if (span.part == part) sum += span.end - span.start;
  }
  return sum;
}

}  // namespace scd
