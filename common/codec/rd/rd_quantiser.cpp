#include "common/codec/rd/rd_quantiser.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/check.h"
#include "common/base/error.h"
#include "common/codec/payload.h"

namespace scd {
namespace {

constexpr float kSqrt2 = 1.41421356f;
// Values round up from here on: a larger dead zone than 1/2 costs a little distortion and saves more rate.
constexpr float kRoundUpFrom = 0.6f;
constexpr int32_t kLargestSymbol = 127;
constexpr size_t kStreamLengthBytes = sizeof(uint32_t);

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kFailedPrecondition, "codec rd: " + what); }

bool falls(std::span<const float> values) {
  return std::ranges::is_sorted(values, std::greater{}) && (values.empty() || values.back() > 0);
}

RansTable make_table(const DenseMatrix& frequencies, int64_t row) {
  RansFrequencies table;
  for (int64_t i = 0; i < frequencies.columns; ++i) {
    const float value = frequencies.at(row, i);
    if (!(value >= 0 && value <= static_cast<float>(kRansTotal))) refuse("a frequency is out of range");
    table[static_cast<size_t>(i)] = static_cast<uint16_t>(value);
  }
  if (table[kRdEscape] == 0) refuse("a table without an escape");
  try {
    return RansTable(table);
  } catch (const Error& error) {
    refuse(error.what());
  }
}

float value_of(int32_t q, float step, float shift) {
  if (q == 0) return 0;
  return q > 0 ? (static_cast<float>(q) + shift) * step : (static_cast<float>(q) - shift) * step;
}

}  // namespace

size_t rd_table_of(float ratio) {
  float bound = kRdSmallestRatio * kSqrt2;
  float next = 2 * kRdSmallestRatio;
  size_t table = 0;
  while (table + 1 < kRdTables && ratio >= bound) {
    ++table;
    bound = std::exchange(next, 2 * bound);
  }
  return table;
}

float rd_ratio_of(size_t table) { return kRdSmallestRatio * std::exp2(0.25f + 0.5f * static_cast<float>(table)); }

int32_t rd_quantise(float value, float step) {
  const float scaled = std::min(std::abs(value) / step + (1 - kRoundUpFrom), 1e9f);
  const auto magnitude = static_cast<int32_t>(scaled);
  return value < 0 ? -magnitude : magnitude;
}

RdQuantiser::RdQuantiser(RdQuantiserSettings settings) : settings_(std::move(settings)) {
  if (settings_.steps.empty() || settings_.steps.size() > kRdMaxLevels) refuse("expected 1 to 16 levels");
  if (!(settings_.steps.front() > 0) || !std::ranges::is_sorted(settings_.steps)) refuse("steps of levels must rise");
  for (const auto& layer : settings_.deviations) {
    if (!falls(layer)) refuse("deviations of components must be positive and fall");
  }
  if (settings_.frequencies.rows != int64_t{kRdTables} || settings_.frequencies.columns != int64_t{kRansSymbols} ||
      settings_.shifts.size() != kRdTables) {
    refuse("expected 18 tables of 256 frequencies");
  }
  for (int64_t row = 0; row < settings_.frequencies.rows; ++row) {
    tables_.push_back(make_table(settings_.frequencies, row));
  }
}

int64_t RdQuantiser::components(int32_t layer, int32_t level) const {
  const std::vector<float>& deviations = settings_.deviations.at(static_cast<size_t>(layer));
  const float smallest = kRdSmallestRatio * settings_.steps.at(static_cast<size_t>(level));
  return std::ranges::upper_bound(deviations, smallest, std::greater{}) - deviations.begin();
}

size_t RdQuantiser::table_of(int32_t layer, int32_t level, int64_t component) const {
  const float deviation = settings_.deviations[static_cast<size_t>(layer)][static_cast<size_t>(component)];
  return rd_table_of(deviation / settings_.steps[static_cast<size_t>(level)]);
}

size_t RdQuantiser::max_bytes(int64_t values) {
  return kStreamLengthBytes + sizeof(uint32_t) * kRansLanes +
         static_cast<size_t>(values) * (sizeof(uint16_t) + sizeof(int32_t));
}

void RdQuantiser::encode(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const {
  const float step = settings_.steps[static_cast<size_t>(level)];
  std::vector<uint8_t> symbols(static_cast<size_t>(values.rows * values.columns));
  std::vector<int32_t> escaped;
  RansEncoder encoder;
  for (int64_t row = 0; row < values.rows; ++row) {
    const RansTable& table = tables_[table_of(layer, level, row)];
    const auto run =
        std::span(symbols).subspan(static_cast<size_t>(row * values.columns), static_cast<size_t>(values.columns));
    for (size_t i = 0; i < run.size(); ++i) {
      const int32_t q = rd_quantise(values.row<float>(row)[i], step);
      const auto symbol = static_cast<uint8_t>(q + 128);
      const bool known = std::abs(q) <= kLargestSymbol && table.frequency(symbol) > 0;
      run[i] = known ? symbol : kRdEscape;
      if (!known) escaped.push_back(q);
    }
    encoder.put(table, run);
  }
  const size_t start = out.size();
  out.resize(start + kStreamLengthBytes);
  encoder.finish(out);
  const auto length = static_cast<uint32_t>(out.size() - start - kStreamLengthBytes);
  std::memcpy(out.data() + start, &length, sizeof length);
  const auto tail = std::as_bytes(std::span(escaped));
  out.insert(out.end(), tail.begin(), tail.end());
}

std::string RdQuantiser::decode(int32_t layer, int32_t level, std::span<const std::byte> body,
                                kernels::Matrix values) const {
  if (body.size() < kStreamLengthBytes) return "its stream is cut off";
  uint32_t length;
  std::memcpy(&length, body.data(), sizeof length);
  body = body.subspan(kStreamLengthBytes);
  if (length > body.size()) return "its stream is cut off";
  RansDecoder decoder(body.first(length));
  auto escaped = body.subspan(length);
  const float step = settings_.steps[static_cast<size_t>(level)];
  std::vector<uint8_t> run(static_cast<size_t>(values.columns));
  for (int64_t row = 0; row < values.rows; ++row) {
    const size_t table = table_of(layer, level, row);
    decoder.take(tables_[table], run);
    auto* target = values.row<float>(row);
    for (size_t i = 0; i < run.size(); ++i) {
      int32_t q = int32_t{run[i]} - 128;
      if (run[i] == kRdEscape) {
        if (escaped.size() < sizeof q) return "an escaped value is missing";
        std::memcpy(&q, escaped.data(), sizeof q);
        if (std::abs(int64_t{q}) > 1'000'000'000) return "an escaped value is out of range";
        escaped = escaped.subspan(sizeof q);
      }
      target[i] = value_of(q, step, settings_.shifts[table]);
    }
  }
  if (!decoder.finished() || !escaped.empty()) return "its stream is not sound";
  return "";
}

}  // namespace scd
