#include "common/codec/layer_plan.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

std::vector<UnitSource> sources_of(const LayerPlan& plan, ModelDepths depths) {
  std::vector<UnitSource> sources;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) sources.push_back(source_of(plan, unit, depths));
  return sources;
}

TEST(UnitSource, ModelsAsDeepAsEachOtherReadTheirOwnLayers) {
  const LayerPlan plan{2, {{2, 3}, {5, 2, true}, {7, 1}}};
  EXPECT_EQ(sources_of(plan, {8, 8}), (std::vector<UnitSource>{{2, 3, 1}, {5, 2, 1}, {7, 1, 6}}));
  EXPECT_EQ(source_of(layer_by_layer(8, 1), 3, {8, 8}), (UnitSource{4, 1, -1}));
}

TEST(UnitSource, AShallowerProducersLayersServeSeveralUnits) {
  const LayerPlan plan{1, {{1, 2}, {3, 1}, {4, 2, true}, {6, 2}}};
  EXPECT_EQ(sources_of(plan, {4, 8}), (std::vector<UnitSource>{{0, 2, 0}, {1, 1, 0}, {2, 1, 0}, {3, 1, 2}}));
}

TEST(UnitSource, OfADeeperProducerEveryLayerBesideTheUnitIsRead) {
  const LayerPlan plan{1, {{1, 1}, {2, 1, true}, {3, 1}}};
  EXPECT_EQ(sources_of(plan, {10, 4}), (std::vector<UnitSource>{{2, 3, 0}, {5, 3, 0}, {7, 3, 5}}));
}

// What encoding in the order of layers needs: whatever the depths, anchors lie before what is predicted from them.
TEST(UnitSource, LiesWithinTheProducerBehindItsAnchor) {
  for (int32_t consumer = 4; consumer < 20; ++consumer) {
    const LayerPlan plan{1, {{1, 1}, {2, consumer - 3, true}, {consumer - 1, 1}}};
    ASSERT_EQ(plan_problem(plan, consumer), "");
    for (int32_t producer = 1; producer < 40; ++producer) {
      for (size_t unit = 0; unit < plan.units.size(); ++unit) {
        const UnitSource source = source_of(plan, unit, {producer, consumer});
        EXPECT_GE(source.first_layer, 0);
        EXPECT_LE(source.end(), producer) << producer << " " << consumer << " " << unit;
        EXPECT_GE(source.layers, 1);
        EXPECT_GE(source.anchor, 0);
        EXPECT_LE(source.anchor, plan.units[unit].residual ? source.first_layer : source.end() - 1);
      }
    }
  }
}

}  // namespace
}  // namespace scd
