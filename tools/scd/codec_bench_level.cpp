#include "tools/scd/codec_bench_level.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "common/base/error.h"
#include "kernels/limits.h"
#include "kernels/linear.h"

namespace scd {

CodecBenchLevel::CodecBenchLevel(const CodecBenchCase& codec, const RdQuantiser& quantiser,
                                 const std::vector<RansTable>& tables, int32_t level)
    : codec_(codec),
      quantiser_(quantiser),
      tables_(tables),
      level_(level),
      planes_(codec.units().size()),
      payloads_(codec.units().size()) {
  for (size_t unit = 0; unit < planes_.size(); ++unit) prepare(unit);
}

void CodecBenchLevel::measure() {
  measure_transform();
  measure_symbols(RdForm::kEntropy, quantiser_part_);
  measure_symbols(RdForm::kPacked, packed_);
  measure_rans();
  measure_whole();
}

double CodecBenchLevel::encode_flops() const {
  double flops = 0;
  for (size_t unit = 0; unit < planes_.size(); ++unit) {
    const int64_t inputs = codec_.units()[unit].encoder_map.columns;
    flops += kernels::GemmShape{codec_.tokens(), inputs, planes_[unit].components}.flops();
  }
  return flops;
}

double CodecBenchLevel::decode_flops() const {
  double flops = 0;
  for (size_t unit = 0; unit < planes_.size(); ++unit) {
    const RdUnitDecoder& decoder = codec_.units()[unit].decoder;
    const int64_t inputs = planes_[unit].components + decoder.anchor_map.rows;
    flops += kernels::GemmShape{codec_.tokens(), decoder.map.columns, inputs}.flops();
    flops += kernels::GemmShape{codec_.tokens(), decoder.anchor_basis.columns, decoder.anchor_basis.rows}.flops();
  }
  return flops;
}

double CodecBenchLevel::bits_per_component(RdForm form) const {
  double bytes = 0;
  for (const Planes& planes : planes_) {
    bytes += static_cast<double>((form == RdForm::kPacked ? planes.packed : planes.entropy).size());
  }
  return 8 * bytes / std::max(1.0, symbols());
}

void CodecBenchLevel::prepare(size_t index) {
  const CodecBenchUnit& unit = codec_.units()[index];
  Planes& planes = planes_[index];
  const float step = codec_.quantiser().steps[static_cast<size_t>(level_)];
  planes.components = quantiser_.components(static_cast<int32_t>(index), level_);
  planes.codes = DenseMatrix(planes.components, codec_.tokens());
  for (int64_t row = 0; row < planes.components; ++row) {
    const float deviation = codec_.quantiser().deviations[index][static_cast<size_t>(row)];
    const RansTable& table = tables_[rd_table_of(deviation / step)];
    planes.tables.push_back(&table);
    for (int64_t i = 0; i < codec_.tokens(); ++i) {
      const int32_t q = rd_quantise(unit.codes.at(row, i), step);
      const bool known = std::abs(q) <= 127 && table.frequency(static_cast<uint8_t>(q + 128)) > 0;
      planes.symbols.push_back(known ? static_cast<uint8_t>(q + 128) : kRdEscape);
    }
  }
  components_ += static_cast<double>(planes.components);
}

void CodecBenchLevel::measure_transform() {
  transform_.encode.add(seconds_of([&] {
    for (size_t index = 0; index < planes_.size(); ++index) {
      const CodecBenchUnit& unit = codec_.units()[index];
      Planes& planes = planes_[index];
      if (planes.components == 0) continue;
      kernels::gemm_f32({.a = unit.encoder_map.top(planes.components),
                         .b = unit.source.view(),
                         .c = planes.codes.view(),
                         .transpose_b = true});
    }
  }));
  transform_.decode.add(seconds_of([&] {
    for (size_t index = 0; index < planes_.size(); ++index) {
      const CodecBenchUnit& unit = codec_.units()[index];
      const kernels::ConstMatrix codes = unit.codes.top(planes_[index].components);
      if (unit.rounded != nullptr) {
        (void)unit.rounded->reconstruct(codes, unit.anchor.view());
      } else {
        (void)reconstruct(unit.decoder, codes, unit.anchor.view());
      }
    }
  }));
}

void CodecBenchLevel::measure_symbols(RdForm form, CodecPart& part) {
  const auto body = [&](size_t unit) -> ByteBuffer& {
    return form == RdForm::kPacked ? planes_[unit].packed : planes_[unit].entropy;
  };
  part.encode.add(seconds_of([&] {
    for (size_t unit = 0; unit < planes_.size(); ++unit) {
      body(unit).clear();
      quantiser_.encode(static_cast<int32_t>(unit), level_, codec_.units()[unit].codes.top(planes_[unit].components),
                        body(unit), form);
    }
  }));
  std::string problem;
  part.decode.add(seconds_of([&] {
    for (size_t unit = 0; unit < planes_.size(); ++unit) {
      problem += quantiser_.decode(static_cast<int32_t>(unit), level_, body(unit), planes_[unit].codes.view());
    }
  }));
  if (!problem.empty()) throw Error(ErrorCode::kInternal, "bench codec: " + problem);
}

void CodecBenchLevel::measure_rans() {
  const auto tokens = static_cast<size_t>(codec_.tokens());
  rans_.encode.add(seconds_of([&] {
    for (Planes& planes : planes_) {
      RansEncoder encoder;
      for (size_t row = 0; row < planes.tables.size(); ++row) {
        encoder.put(*planes.tables[row], std::span(planes.symbols).subspan(row * tokens, tokens));
      }
      planes.stream.clear();
      encoder.finish(planes.stream);
    }
  }));
  std::vector<uint8_t> run(tokens);
  rans_.decode.add(seconds_of([&] {
    for (const Planes& planes : planes_) {
      RansDecoder decoder(planes.stream);
      for (const RansTable* table : planes.tables) decoder.take(*table, run);
      if (!decoder.finished()) throw Error(ErrorCode::kInternal, "bench codec: a stream did not come back");
    }
  }));
}

void CodecBenchLevel::measure_whole() {
  whole_.encode.add(seconds_of([&] {
    for (size_t unit = 0; unit < payloads_.size(); ++unit) payloads_[unit] = codec_.encode(unit, level_);
  }));
  whole_.decode.add(seconds_of([&] {
    for (size_t unit = 0; unit < payloads_.size(); ++unit) codec_.decode(unit, payloads_[unit]);
  }));
}

}  // namespace scd
