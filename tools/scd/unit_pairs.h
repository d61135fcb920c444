// Sampled rows of units, both models' side by side: what networks on the decoder's side are trained on and judged by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/codec/calibration/reservoir.h"
#include "tools/scd/unit_pass.h"

namespace scd {

struct UnitPairsOptions {
  int64_t bytes = int64_t{1} << 30;  // of all units together
  int64_t tokens = 16384;            // at most so many of a unit
  uint64_t seed = 1;
};

class UnitPairs {
 public:
  UnitPairs(const CodecModel& producer, const CodecModel& consumer, std::vector<AnchoredUnit> units,
            const UnitPairsOptions& options);

  // As UnitVisitor has them.
  void add(size_t unit, const UnitRows& rows);

  struct Rows {
    DenseMatrix x;  // [tokens, source]
    DenseMatrix y;  // [tokens, target]
    DenseMatrix h;  // [tokens, anchor]
  };
  Rows rows(const AnchoredUnit& of) const;

 private:
  std::vector<AnchoredUnit> units_;
  std::vector<UnitWidths> widths_;
  std::vector<PairReservoir> reservoirs_;
};

}  // namespace scd
