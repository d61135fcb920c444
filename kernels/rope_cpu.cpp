// Cosines and sines cost far more than the rotation: they are kept per table in blocks of positions, so that the heads,
// layers and calls of a thread share them.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/cpu_kernels.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kBlockPositions = 64;

// cos then sin, each [head_dim / 2], per position of a block; angles in double, as the positions grow large.
class RotationTable {
 public:
  explicit RotationTable(RopeTable table) : table_(std::move(table)) {}

  const RopeTable& table() const { return table_; }
  int64_t pairs() const { return static_cast<int64_t>(table_.inverse_frequencies.size()); }

  void prepare(int32_t position) {
    const size_t index = static_cast<size_t>(position / kBlockPositions);
    if (index >= blocks_.size()) blocks_.resize(index + 1);
    if (blocks_[index] == nullptr) blocks_[index] = make_block(static_cast<int64_t>(index) * kBlockPositions);
  }

  const float* at(int32_t position) const {
    return blocks_[static_cast<size_t>(position / kBlockPositions)].get() + position % kBlockPositions * 2 * pairs();
  }

 private:
  std::unique_ptr<float[]> make_block(int64_t first_position) const {
    auto block = std::make_unique<float[]>(static_cast<size_t>(kBlockPositions * 2 * pairs()));
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < kBlockPositions; ++p) {
      float* cosines = block.get() + p * 2 * pairs();
      for (int64_t i = 0; i < pairs(); ++i) {
        const double frequency = table_.inverse_frequencies[static_cast<size_t>(i)];
        const double angle = static_cast<double>(first_position + p) * frequency;
        cosines[i] = static_cast<float>(std::cos(angle));
        cosines[pairs() + i] = static_cast<float>(std::sin(angle));
      }
    }
    return block;
  }

  RopeTable table_;
  std::vector<std::unique_ptr<float[]>> blocks_;
};

// The tables a thread used last: producer's and consumer's of a translation, and two to spare.
RotationTable& rotation_table(const RopeTable& table) {
  thread_local std::vector<std::unique_ptr<RotationTable>> recent;
  constexpr size_t kTables = 4;
  auto found = std::find_if(recent.begin(), recent.end(), [&](const auto& entry) {
    return entry->table().inverse_frequencies == table.inverse_frequencies;
  });
  if (found == recent.end()) {
    if (recent.size() == kTables) recent.pop_back();
    recent.push_back(std::make_unique<RotationTable>(table));
    found = recent.end() - 1;
  }
  std::rotate(recent.begin(), found, found + 1);
  return *recent.front();
}

void rotate_head(float* head, const float* cosines, const float* sines, int64_t pairs, float cos_scale,
                 float sin_scale) {
  float* low = head;
  float* high = head + pairs;
  for (int64_t i = 0; i < pairs; ++i) {
    const float c = cosines[i] * cos_scale;
    const float s = sines[i] * sin_scale;
    const float a = low[i];
    const float b = high[i];
    low[i] = a * c - b * s;
    high[i] = b * c + a * s;
  }
}

}  // namespace

void rope(Matrix x, int64_t head_dim, Indices indices, const RopeTable& table, RopeDirection direction) {
  const std::span<const int32_t> positions = indices.host;
  RotationTable& rotations = rotation_table(table);
  for (int32_t position : positions) rotations.prepare(position);
  const bool rotate = direction == RopeDirection::kRotate;
  const float cos_scale = rotate ? table.attention_scale : 1.0f / table.attention_scale;
  const float sin_scale = rotate ? cos_scale : -cos_scale;
  const int64_t pairs = head_dim / 2;
#pragma omp parallel for schedule(static) if (x.rows > 8)
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* cosines = rotations.at(positions[static_cast<size_t>(r)]);
    for (int64_t first = 0; first < x.columns; first += head_dim) {
      rotate_head(x.row<float>(r) + first, cosines, cosines + pairs, pairs, cos_scale, sin_scale);
    }
  }
}

}  // namespace scd::kernels::cpu
