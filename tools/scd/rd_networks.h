// Networks on the decoder's side of `rd`: what regressions leave of a consumer's state, from the codes as they arrive
// and its own anchor. They cost no bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tools/scd/rd_fitter.h"
#include "tools/scd/unit_pairs.h"

namespace scd {

struct RdNetworkOptions {
  int64_t width = 0;
  uint64_t seed = 1;
  std::function<void(double)> progress = {};  // share of the units done; may be empty
};

// What a unit's validation rows lose in the metric, mean over levels: KL, to first order.
struct RdNetworkLoss {
  double by_regression = 0;
  double with_network = 0;  // the same where none is kept
};

// Gives every unit of `decoder` whose loss on validation rows it lowers by 2 % a network, trained in the unit's metric
// on codes of all levels, so that one serves them all. `consumer` has its pairs; validation: of text that nothing was
// fitted on. One loss a unit.
std::vector<RdNetworkLoss> fit_networks(const RdConsumer& consumer, const UnitPairs& validation,
                                        const RdEncoderMaps& encoder, const RdNetworkOptions& options,
                                        RdDecoderMaps& decoder);

}  // namespace scd
