#include "common/codec/rd/rd_blocks.h"

#include <string>
#include <utility>

#include "common/codec/block_runs.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/payload.h"

namespace scd {
namespace {

using Block = RdDecoderOnDevice::Block;

std::string text_of(kernels::StreamProblem problem) {
  switch (problem) {
    case kernels::StreamProblem::kNone: return "";
    case kernels::StreamProblem::kUnsound: return "its stream is not sound";
    case kernels::StreamProblem::kEscapeOutOfRange: return "an escaped value is out of range";
  }
  return "its stream is not sound";
}

// Of a form that is read on the host.
std::string read_on_host(const RdQuantiser& quantiser, const RdBody& body, const PayloadPlace& place,
                         const Block& block, int64_t first) {
  DenseMatrix codes(body.components, place.tokens);
  std::string problem = quantiser.decode(static_cast<int32_t>(body.unit), body.level, body.body, codes.view());
  if (problem.empty()) RdDecoderOnDevice::put(codes.view(), block, first);
  return problem;
}

class PendingRdBlocks final : public PendingBlocks {
 public:
  PendingRdBlocks(std::shared_ptr<kernels::StreamDecoder> streams, std::vector<PayloadPlace> place_of_stream,
                  std::vector<CodeBlock> blocks)
      : streams_(std::move(streams)), place_of_stream_(std::move(place_of_stream)), blocks_(std::move(blocks)) {}
  PendingRdBlocks(const PendingRdBlocks&) = delete;
  PendingRdBlocks& operator=(const PendingRdBlocks&) = delete;
  // The blocks' memory is used again as soon as it is free.
  ~PendingRdBlocks() override { streams_->abandon(); }

  void start(std::span<const kernels::StreamToDecode> streams) { streams_->start(streams); }
  bool finished() const override { return streams_->finished(); }

  Result<std::vector<CodeBlock>> finish() override {
    const std::vector<kernels::StreamProblem> problems = streams_->finish();
    for (size_t s = 0; s < problems.size(); ++s) {
      if (problems[s] == kernels::StreamProblem::kNone) continue;
      return payload_failure(place_of_stream_[s], text_of(problems[s]));
    }
    return std::move(blocks_);
  }

 private:
  const std::shared_ptr<kernels::StreamDecoder> streams_;
  const std::vector<PayloadPlace> place_of_stream_;
  std::vector<CodeBlock> blocks_;
};

}  // namespace

Result<std::unique_ptr<PendingBlocks>> begin_rd_blocks(const RdDecoderOnDevice& decoder, const RdQuantiser& quantiser,
                                                       std::span<const Payload> payloads,
                                                       std::span<const RdBody> bodies) {
  const std::vector<BlockRun> runs = block_runs(payloads, RdDecoderOnDevice::kMaxBlockTokens, [&](size_t i, size_t j) {
    return bodies[i].components == bodies[j].components;
  });
  std::vector<RdDecoderOnDevice::Shape> shapes;
  for (const BlockRun& run : runs) shapes.push_back({run.tokens, bodies[run.payloads.front()].components});
  const std::vector<Block> blocks = decoder.blocks(shapes);
  std::vector<kernels::StreamToDecode> streams;
  std::vector<PayloadPlace> place_of_stream;
  for (size_t r = 0; r < runs.size(); ++r) {
    int64_t first = 0;
    for (const size_t i : runs[r].payloads) {
      const PayloadPlace& place = payloads[i].place;
      const RdBody& body = bodies[i];
      if (const auto coded = RdQuantiser::entropy_streams(body.body, body.components, place.tokens)) {
        const kernels::Matrix numbers = rows_of(blocks[r].codes, first, place.tokens);
        const auto parts = rd_stream_parts(body.components, std::span(&place.tokens, 1));
        for (size_t s = 0; s < parts.size(); ++s) {
          kernels::StreamRows rows = decoder.rows(body.unit, body.level);
          rows.rows += parts[s].first_row;
          streams.push_back({(*coded)[s], rows, parts[s].rows, columns_of(numbers, parts[s].first_row, parts[s].rows)});
          place_of_stream.push_back(place);
        }
      } else if (std::string problem = read_on_host(quantiser, body, place, blocks[r], first); !problem.empty()) {
        return payload_failure(place, problem);
      }
      first += place.tokens;
    }
  }
  std::vector<CodeBlock> made;
  for (size_t r = 0; r < runs.size(); ++r) {
    made.push_back({place_of(runs[r], payloads), std::make_shared<Block>(blocks[r])});
  }
  size_t bytes = 0;
  for (const auto& [stream, rows, row_count, numbers] : streams) bytes += stream.rans.size() + stream.escapes.size();
  auto pending =
      std::make_unique<PendingRdBlocks>(decoder.stream_decoder(bytes), std::move(place_of_stream), std::move(made));
  pending->start(streams);
  return std::unique_ptr<PendingBlocks>(std::move(pending));
}

}  // namespace scd
