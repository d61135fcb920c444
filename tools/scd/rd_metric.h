// What the consumer makes of an error in its cache: the metrics in which `rd` is fitted.
#pragma once

#include <Eigen/Core>
#include <span>

#include "common/model/model.h"
#include "tools/scd/rd_statistics.h"

namespace scd {

// Of errors in keys before RoPE and in values of a layer, block-diagonal by KV head. Keys: E[(q^T R e)^2 / d] over the
// queries seen and the distances R at which they may stand; values: e^T W_O W_O^T e of the heads that read them. Each
// is scaled to trace 1: how much it matters is measured apart.
struct LayerMetric {
  Eigen::MatrixXd keys;    // [kv_width, kv_width]
  Eigen::MatrixXd values;  // [kv_width, kv_width]
};
LayerMetric metric_of(const Model& consumer, int32_t layer, const RdLayerStatistics& statistics);

// Of errors in the residual stream before a native span, as rd_maps.h scales it: what they make of keys and values of
// the span's layers, to first order and past the layers' own outputs. layers: by layer, weighted.
Eigen::MatrixXd residual_metric(const Model& consumer, const AnchoredUnit& span, std::span<const LayerMetric> layers,
                                const RdStatistics& statistics);

}  // namespace scd
