#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <unordered_map>

#include "kernels/sgemm.h"

namespace scd::kernels::cpu {
namespace {

using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

dnnl::memory filled_memory(const dnnl::memory::desc& desc, const dnnl::engine& engine) {
  dnnl::memory memory(desc, engine);
  auto* bytes = static_cast<uint8_t*>(memory.get_data_handle());
  // 0x3c01.. are small positive numbers as BF16 and as F32.
  const size_t size = desc.get_size();
  for (size_t i = 0; i < size; ++i) bytes[i] = (i & 1) != 0 ? 0x3c : static_cast<uint8_t>(i >> 1);
  return memory;
}

}  // namespace

void sgemm(const GemmArgs& args) {
  const int64_t m = args.c.rows;
  const int64_t n = args.c.columns;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.columns;
  const auto stride = [](const ConstMatrix& matrix) { return std::max(matrix.row_stride, matrix.columns); };
  const auto status =
      dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', m, n, k, 1.0f, args.a.row<float>(0),
                 stride(args.a), args.b.row<float>(0), stride(args.b), args.beta, args.c.row<float>(0), stride(args.c));
  if (status != dnnl_success) throw std::runtime_error("oneDNN failed in sgemm");
}

std::function<void()> peak_gemm(const GemmShape& shape) {
  const Type type = bf16_is_native() ? Type::bf16 : Type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  // Weights in the layout that it prefers.
  const dnnl::matmul::primitive_desc primitive({{{shape.m, shape.k}, type, Tag::ab},
                                                {{shape.k, shape.n}, type, Tag::any},
                                                {{shape.m, shape.n}, Type::f32, Tag::ab}},
                                               engine);
  const std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, filled_memory(primitive.src_desc(), engine)},
      {DNNL_ARG_WEIGHTS, filled_memory(primitive.weights_desc(), engine)},
      {DNNL_ARG_DST, filled_memory(primitive.dst_desc(), engine)}};
  return [matmul = dnnl::matmul(primitive), arguments, stream = dnnl::stream(engine)]() mutable {
    matmul.execute(stream, arguments);
    stream.wait();
  };
}

std::string peak_gemm_name() { return bf16_is_native() ? "oneDNN, BF16" : "oneDNN, FP32"; }

}  // namespace scd::kernels::cpu
