// Other ways to fit an `rd` codec, each without one of its parts: what a search measures to say what the part is worth.
// All of them give maps of the same form, so each is a codec that could be served.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/codec_model.h"
#include "tools/scd/rd_metric.h"

namespace scd {

enum class RdVariant : uint8_t {
  kFull,
  kNoMetric,             // all directions of a layer's keys (or values) weigh the same; measured weights by layer stay
  kNoWeights,            // keys and values of all layers weigh the same; the metric's directions stay
  kHeadShared,           // one map a layer for all heads, each read by itself; of units that have no anchor
  kFixedRank,            // so many components of every layer, each with the same bits, instead of water-filling
  kPrincipalComponents,  // of the producer's state, without directions of the metric: transform coding of the cache
};
inline constexpr std::array<std::string_view, 6> kRdVariantNames{"full",        "no-metric",  "no-weights",
                                                                 "head-shared", "fixed-rank", "principal-components"};
constexpr std::string_view to_string(RdVariant variant) { return kRdVariantNames[static_cast<size_t>(variant)]; }
// Throws Error kInvalidArgument naming those there are.
RdVariant parse_rd_variant(std::string_view name);

// The metrics that the variant fits in; of principal components only their traces count.
std::vector<LayerMetric> metrics_of(RdVariant variant, std::span<const LayerMetric> metrics);

// Covariances of keys and values between heads set to zero, those within a head to the mean over the layer's heads. Of
// a unit without anchor; producer and consumer have the same shape.
Eigen::MatrixXd with_shared_heads(const RegressionMoment& moment, const CodedUnit& unit, const CodecModel& model);

// Transform coding of x itself: the regression of x on x.
RateFit fit_principal_components(const RegressionMoment& moment, const Eigen::MatrixXd& metric, double ridge,
                                 const Algebra& algebra);

// The first `rank` components, all with the same deviation.
void fix_rank(RateFit& fit, int64_t rank);

}  // namespace scd
