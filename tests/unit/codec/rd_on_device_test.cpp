// The linear maps of `rd` on a GPU against those on the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/codec/key_rotation.h"
#include "common/codec/rd/rd_on_device.h"
#include "common/codec/rd/rd_state.h"
#include "kernels/grow_buffer.h"
#include "kernels/paged_kv.h"
#include "kernels/rms_norm.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using testing::random_matrix;
using testing::sample_rd;
using testing::SampleChunk;
using testing::small_model;

constexpr int64_t kTokens = 37, kFirst = 32;
constexpr int64_t kComponents = 21;
constexpr auto kGpu = kernels::Device::kGpu;

// Products' inputs are rounded to 10 bits of mantissa: so much of the sum of absolute products, about.
constexpr double kRounding = 2e-3;
constexpr double kRoundingOfDecoder = 1.6e-2;  // 7 bits

// Of one unit, the tables of sample_rd().
RdQuantiserSettings falling_quantiser(int64_t components) {
  RdQuantiserSettings settings = sample_rd(small_model(), layer_by_layer(3, 0), {0.1f, 0.4f}).encoder.quantiser;
  std::vector<float> deviations;
  for (int64_t i = 0; i < components; ++i) deviations.push_back(2.0f - static_cast<float>(i) / 100);
  settings.deviations = {std::move(deviations)};
  return settings;
}

struct Case {
  CodedUnit unit;
  bool anchored;
};
// Keys and values with and without an anchor, and a residual stream.
const Case kCases[] = {{{1, 2}, false}, {{1, 2}, true}, {{1, 1, true}, true}};

class RdOnDevice : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }
  int64_t width() const { return unit().residual ? model_.hidden : 2 * model_.kv_width() * unit().layers; }
  int64_t anchor() const { return GetParam().anchored ? model_.hidden : 0; }
  const CodedUnit& unit() const { return GetParam().unit; }

  // x as the CPU has it.
  DenseMatrix source() const {
    const LayerChunk& chunk = sample_.chunk;
    DenseMatrix x =
        unit().residual
            ? rd_residual(chunk.residual, chunk.anchor)
            : side_by_side(unrotated_copy(chunk.keys, model_.head_dim, kFirst, model_.rope).view(), chunk.values);
    return anchor() > 0 ? side_by_side(x.view(), normalised_rows(chunk.anchor).view()) : x;
  }

  // Keys and values in pages on the GPU.
  LayerChunk paged_chunk() {
    constexpr int64_t kPageTokens = 8;
    LayerChunk chunk = sample_.chunk;
    if (unit().residual) return chunk;
    const int64_t width = model_.kv_width(), pages = (kFirst + kTokens + kPageTokens - 1) / kPageTokens;
    page_ids_.resize(static_cast<size_t>(pages));
    std::iota(page_ids_.rbegin(), page_ids_.rend(), 0);
    const kernels::SequenceRows rows{page_ids_, 0, kTokens, kFirst};
    const auto layer_of = [&](kernels::ConstMatrix all, int32_t layer) {
      all.data = all.row<float>(0) + layer * width;
      all.columns = width;
      return all;
    };
    for (int32_t layer = 0; layer < unit().layers; ++layer) {
      const auto memory = [&] {
        return page_memory_.emplace_back(kGpu, static_cast<size_t>(pages * kPageTokens * width) * sizeof(float)).data();
      };
      layers_.push_back({.keys = memory(),
                         .values = memory(),
                         .kv_heads = model_.kv_heads,
                         .page_tokens = kPageTokens,
                         .head_dim = model_.head_dim,
                         .device = kGpu,
                         .pages = pages});
      kernels::write_kv(layers_.back(), {&rows, 1}, layer_of(chunk.keys, layer), layer_of(chunk.values, layer));
    }
    chunk.keys = chunk.values = {};
    chunk.pages = {layers_, page_ids_, kTokens};
    return chunk;
  }

  CodecModel model_ = small_model();
  std::vector<int32_t> page_ids_;
  std::vector<kernels::DeviceBuffer> page_memory_;
  std::vector<kernels::PagedKv> layers_;
  RdQuantiser quantiser_{falling_quantiser(kComponents)};
  SampleChunk sample_{model_, 1, kFirst, kTokens, 7, GetParam().unit.layers};
};

DenseMatrix brought(const kernels::ConstMatrix& there) {
  DenseMatrix here(there.rows, there.columns);
  kernels::copy(there, here.view());
  return here;
}

TEST_P(RdOnDevice, CodesAreThoseOfTheCpuToRounding) {
  const RdUnitEncoder maps{random_matrix(kComponents, width() + anchor(), 3), random_matrix(1, kComponents, 4).values};
  const RdEncoderOnDevice encoder(model_, {maps}, quantiser_);
  const DenseMatrix x = source();
  const auto expect_codes = [&](const DenseMatrix& codes, bool with_offset) {
    for (int64_t c = 0; c < codes.rows; ++c) {
      for (int64_t t = 0; t < kTokens; ++t) {
        double sum = with_offset ? maps.offset[static_cast<size_t>(c)] : 0.0f, scale = 1.0;
        for (int64_t i = 0; i < x.columns; ++i) {
          sum += double{maps.map.at(c, i)} * x.at(t, i);
          scale += std::abs(double{maps.map.at(c, i)} * x.at(t, i));
        }
        ASSERT_NEAR(codes.at(c, t), sum, kRounding * scale) << c << " " << t;
      }
    }
  };
  LayerChunk chunk = sample_.chunk, paged = paged_chunk();
  if (!GetParam().anchored) chunk.anchor = paged.anchor = {};
  KeptAnchor kept(kFirst - 16, kTokens + 20);
  paged.kept_anchor = &kept;
  for (const int64_t components : {kComponents, int64_t{5}, int64_t{1}}) {
    for (const LayerChunk& rows : {chunk, paged}) {
      kernels::GrowBuffer memory;
      const kernels::Matrix there = memory.matrix(components, kTokens, kernels::DType::kF32, kGpu);
      encoder.codes(0, unit(), rows, there);
      expect_codes(brought(there), true);
      encoder.products(0, unit(), rows, there);
      expect_codes(brought(there), false);
    }
  }
}

TEST_P(RdOnDevice, WhatItRebuildsIsThatOfTheCpuToRounding) {
  RdUnitDecoder maps{random_matrix(kComponents, width(), 5), random_matrix(anchor(), width(), 6),
                     random_matrix(1, width(), 8).values};
  if (anchor() == 0) maps.anchor_map = {};
  if (unit().residual) {
    maps.anchor_basis = random_matrix(anchor(), 3, 10);
    maps.anchor_map.rows = 3;
    maps.anchor_map.values.resize(static_cast<size_t>(3 * width()));
  }
  const RdDecoderOnDevice decoder(model_, {maps}, quantiser_);
  DecodedLayer out;
  KeptAnchor kept(0, kFirst + kTokens);
  for (const int64_t components : {kComponents, int64_t{3}, int64_t{0}, kComponents}) {
    const DenseMatrix codes = random_matrix(components, kTokens, 9);
    const PayloadPlace place{1, kFirst, kTokens, sample_.chunk.anchor, components == 0 ? nullptr : &kept};
    const RdDecoderOnDevice::Shape shape{kTokens, components};
    const RdDecoderOnDevice::Block block = decoder.blocks({&shape, 1}).front();
    RdDecoderOnDevice::put(codes.view(), block, 0);
    decoder.decode(0, unit(), place, block, out);
    const DenseMatrix h = anchor() > 0 ? normalised_rows(sample_.chunk.anchor) : DenseMatrix(kTokens, 0);
    DenseMatrix state = reconstruct(maps, codes.view(), h.view());
    const double allowed = kRoundingOfDecoder * static_cast<double>(kComponents + anchor());
    const auto expect_near = [&](const DenseMatrix& found, const DenseMatrix& expected) {
      ASSERT_EQ(found.values.size(), expected.values.size());
      for (size_t i = 0; i < found.values.size(); ++i) ASSERT_NEAR(found.values[i], expected.values[i], allowed) << i;
    };
    if (unit().residual) {
      ASSERT_EQ(out.kind, DecodedKind::kResidual);
      DenseMatrix expected(kTokens, width());
      kernels::multiply_by_rms(state.view(), sample_.chunk.anchor, expected.view());
      expect_near(brought(out.hidden_rows()), expected);
      continue;
    }
    ASSERT_EQ(out.kind, DecodedKind::kKeysValues);
    DenseMatrix keys(kTokens, width() / 2), values(kTokens, width() / 2);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t i = 0; i < width() / 2; ++i) {
        keys.at(t, i) = state.at(t, i);
        values.at(t, i) = state.at(t, width() / 2 + i);
      }
    }
    ASSERT_NE(out.on_device.rope, nullptr);
    EXPECT_EQ(*out.on_device.rope, model_.rope);
    expect_near(brought(out.key_rows()), keys);
    expect_near(brought(out.value_rows()), values);
  }
}

INSTANTIATE_TEST_SUITE_P(Units, RdOnDevice, ::testing::ValuesIn(kCases), [](const auto& param) {
  return param.param.unit.residual ? "Residual" : param.param.anchored ? "Anchored" : "KeysValues";
});

}  // namespace
}  // namespace scd
