#include "tools/scd/rd_rate.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace scd {
namespace {

// Entropy of each table's distribution, bits a symbol.
std::vector<double> bits_of_tables(const RdQuantiserSettings& settings) {
  std::vector<double> bits(kRdTables);
  for (size_t table = 0; table < kRdTables; ++table) {
    for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      const double share =
          settings.frequencies.at(static_cast<int64_t>(table), static_cast<int64_t>(symbol)) / double{kRansTotal};
      if (share > 0) bits[table] -= share * std::log2(share);
    }
  }
  return bits;
}

double bits_at(const RdQuantiserSettings& settings, std::span<const double> table_bits, double step) {
  double bits = 0;
  for (const std::vector<float>& deviations : settings.deviations) {
    for (const float deviation : deviations) {
      const auto ratio = static_cast<float>(deviation / step);
      if (ratio < kRdSmallestRatio) break;
      // Above the last table's range every octave costs a bit.
      const float over = std::max(0.0f, std::log2(ratio / rd_ratio_of(kRdTables - 1)));
      bits += table_bits[rd_table_of(ratio)] + over;
    }
  }
  return bits;
}

// Bits a token of Gaussian components at a distortion, by reverse water-filling.
double gaussian_bits(std::span<const double> variances, double distortion) {
  double low = -120, high = 120;  // log2 of the water level
  for (int i = 0; i < 80; ++i) {
    const double level = std::exp2((low + high) / 2);
    double sum = 0;
    for (const double variance : variances) sum += std::min(level, variance);
    (sum > distortion ? high : low) = (low + high) / 2;
  }
  double bits = 0;
  for (const double variance : variances) bits += std::max(0.0, 0.5 * (std::log2(variance) - low));
  return bits;
}

struct CodedUnitBody {
  ByteBuffer bytes;
  DenseMatrix decoded;
};

CodedUnitBody code_and_read(const RdQuantiser& quantiser, int32_t unit, int32_t level, const DenseMatrix& codes) {
  const int64_t sent = quantiser.components(unit, level);
  CodedUnitBody body{{}, DenseMatrix(codes.rows, codes.columns)};
  quantiser.encode(unit, level, codes.top(sent), body.bytes);
  const std::string problem =
      quantiser.decode(unit, level, body.bytes, kernels::matrix(body.decoded.values.data(), sent, codes.columns));
  SCD_CHECK(problem.empty(), problem);
  return body;
}

// Coded and read again: bits and distortion.
RateBound bound_of_unit(const RdQuantiser& quantiser, int32_t unit, int32_t level, const DenseMatrix& codes) {
  const auto [body, decoded] = code_and_read(quantiser, unit, level, codes);
  double squares = 0;
  for (size_t i = 0; i < codes.values.size(); ++i) {
    const double error = double{codes.values[i]} - decoded.values[i];
    squares += error * error;
  }
  RateBound bound;
  bound.bits = 8.0 * static_cast<double>(body.size()) / static_cast<double>(codes.columns);
  bound.distortion = squares / static_cast<double>(codes.columns);
  return bound;
}

}  // namespace

DenseMatrix read_back(const RdQuantiser& quantiser, int32_t unit, int32_t level, const DenseMatrix& codes) {
  return code_and_read(quantiser, unit, level, codes).decoded;
}

// The step at which all units cost so many bits a token, by the tables.
float step_for(const RdQuantiserSettings& settings, double wanted_bits) {
  const std::vector<double> table_bits = bits_of_tables(settings);
  double low = -60, high = 60;  // log2 of the step
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (bits_at(settings, table_bits, std::exp2(middle)) > wanted_bits ? low : high) = middle;
  }
  return static_cast<float>(std::exp2(high));
}

std::vector<RateBound> rate_bounds(const RdQuantiserSettings& settings, std::span<const DenseMatrix> codes) {
  const RdQuantiser quantiser(settings);
  std::vector<double> variances;
  for (const std::vector<float>& deviations : settings.deviations) {
    for (const float deviation : deviations) variances.push_back(std::pow(double{deviation}, 2));
  }
  std::vector<RateBound> bounds(static_cast<size_t>(quantiser.levels()));
  for (int32_t level = 0; level < quantiser.levels(); ++level) {
    std::vector<RateBound> of_units(codes.size());
#pragma omp parallel for schedule(dynamic)
    for (size_t unit = 0; unit < codes.size(); ++unit) {
      of_units[unit] = bound_of_unit(quantiser, static_cast<int32_t>(unit), level, codes[unit]);
    }
    RateBound& bound = bounds[static_cast<size_t>(level)];
    for (const RateBound& of_unit : of_units) {
      bound.bits += of_unit.bits;
      bound.distortion += of_unit.distortion;
    }
    bound.bound_bits = gaussian_bits(variances, bound.distortion);
  }
  return bounds;
}

}  // namespace scd
