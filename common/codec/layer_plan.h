// Which layers a codec codes together, and which the consumer computes itself. The consumer always has some layers
// exactly (layer 0 needs token ids only); the rest is tiled by units, each one payload a chunk of tokens:
//
//   keys and values   of one or more layers, coded together
//   residual          the residual stream before a layer, predicted or as it is, from which the consumer runs the
//                     unit's layers natively over the prefix: drift that no rate buys ends there
//
// Wherever the consumer has computed layers natively, it knows its own residual stream before the last of them: the
// anchor of the units behind it, side information from which most of their content is predicted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"

namespace scd {

struct CodedUnit {
  int32_t first_layer = 0;
  int32_t layers = 1;
  bool residual = false;
  int32_t end() const { return first_layer + layers; }
  bool operator==(const CodedUnit&) const = default;
};

struct LayerPlan {
  int32_t exact_layers = 0;      // keys and values of layers before it come from the token ids
  std::vector<CodedUnit> units;  // by rising layer; they tile what is left
  bool predicted = true;         // units are predicted from their anchors

  // The layer before which the consumer's residual stream is known when a unit is decoded; -1: none, or not used.
  int32_t anchor_of(size_t unit) const;
  // The unit that begins at a layer; units.size() when none does.
  size_t unit_at(int32_t layer) const;
  // Whole layers that the consumer runs over the prefix, of all its layers.
  double native_share(int32_t layers) const;
  bool operator==(const LayerPlan&) const = default;
};

// What a unit is coded from, in the producer's layers. A plan speaks of the consumer's, on both sides: a unit is named
// by its first layer there.
struct UnitSource {
  int32_t first_layer = 0;  // keys and values from here on, or the residual stream before it
  int32_t layers = 1;
  int32_t anchor = -1;  // the layer before which its residual stream is read beside; -1: none
  int32_t end() const { return first_layer + layers; }
  bool operator==(const UnitSource&) const = default;
};

struct ModelDepths {
  int32_t producer = 0;
  int32_t consumer = 0;
};

// The same layers where both models are as deep. Elsewhere those at the same relative depth: every producer layer that
// the unit's layers overlap, the residual stream nearest to the one that is coded, and for the anchor the last one that
// is no deeper.
UnitSource source_of(const LayerPlan& plan, size_t unit, ModelDepths depths);

// Keys and values of each layer on its own, predicted from nothing.
LayerPlan layer_by_layer(int32_t layers, int32_t exact_layers);

// What keeps it from being the plan of a model with so many layers, or nothing.
std::string plan_problem(const LayerPlan& plan, int32_t layers);

// The plan of a codec whose calibration decided it; FAILED_PRECONDITION for a consumer that computes another number of
// first layers itself.
Result<LayerPlan> calibrated_plan(const LayerPlan& plan, int32_t exact_layers, std::string_view codec);

// "exact 0-4 | 5-7 | 8-10 | native 11-20 | 21-23"
std::string to_string(const LayerPlan& plan);

}  // namespace scd
