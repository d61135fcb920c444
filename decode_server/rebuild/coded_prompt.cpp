#include "decode_server/rebuild/coded_prompt.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "kernels/device.h"

namespace scd {
namespace {

constexpr std::ptrdiff_t kMostReadAhead = 256;  // messages whose reading begins at once: others wait for the thread
constexpr std::ptrdiff_t kMostBlocks = 64;      // that take memory of the GPU while others could be read
constexpr std::ptrdiff_t kMostReadings = 4;     // the same
constexpr double kCostOfDecoding = 0.25;        // of computing the layers that codes stand for

}  // namespace

CodedPrompt::CodedPrompt(Args args)
    : args_(std::move(args)),
      native_tokens_(std::max(args_.sinks, args_.wish.held_tokens)),
      sinks_pending_(args_.sinks > args_.wish.held_tokens) {
  if (args_.wish.first_layer == 0) return;
  exact_.emplace(NativeLayers::Args{.model = args_.model,
                                    .cache = args_.cache,
                                    .pages = args_.job.pages,
                                    .tokens = args_.tokens.first(static_cast<size_t>(args_.wish.handover_tokens)),
                                    .first_token = native_tokens_,
                                    .first_layer = 0,
                                    .layers = args_.wish.first_layer,
                                    .keep_anchor = args_.wish.predicts,
                                    .adapter = args_.adapter});
}

void CodedPrompt::begin(TransferPlan plan) {
  suffix_.reset();
  reading_.clear();
  blocks_.clear();
  rebuild_.emplace(PrefixRebuild::Args{.model = args_.model,
                                       .cache = args_.cache,
                                       .job = args_.job,
                                       .plan = std::move(plan),
                                       .native_tokens = native_tokens_,
                                       .exact_layers = exact_ ? &*exact_ : nullptr,
                                       .adapter = args_.adapter,
                                       .native_rows = args_.chunk_tokens});
  wire_bytes_ = 0;
  wire_messages_ = 0;
  rebuild_time_ = {};
}

void CodedPrompt::push(ReceivedMessage message) {
  args_.job.timeline.arrived(message.header().generation, message.announced_at(), message.received_at());
  messages_.push_back(std::move(message));
}

void CodedPrompt::forget_messages() {
  messages_.clear();
  reading_.clear();
  blocks_.clear();
  suffix_.reset();
  rebuild_.reset();
}

CodedStep CodedPrompt::next(bool suffix_by_layers) const {
  if (sinks_pending_) return CodedStep::kRebuild;
  if (rebuild_) {
    if (suffix_ == nullptr && !suffix_by_layers) {
      if (rebuild_->complete()) return CodedStep::kPrefixComplete;
    } else {
      const int32_t layer = suffix_ == nullptr ? 0 : suffix_->next_layer();
      if (layer == args_.model.config().layers) return CodedStep::kFirstToken;
      if (rebuild_->layer_ready(layer)) return CodedStep::kSuffixLayer;
    }
    if (rebuild_possible()) return CodedStep::kRebuild;
  }
  return exact_pending() ? CodedStep::kRebuild : CodedStep::kWait;
}

Result<double> CodedPrompt::run(bool suffix_by_layers) {
  const bool is_suffix = next(suffix_by_layers) == CodedStep::kSuffixLayer;
  const auto begin = ServingClock::now();
  bool rebuilds = false;
  Result<double> cost = 0.0;
  if (is_suffix) {
    cost = run_suffix();
  } else if (sinks_pending_) {
    cost = run_sinks();
  } else if (rebuild_ && rebuild_possible()) {
    cost = rebuild();
    rebuilds = true;
  } else {
    cost = run_exact();
  }
  // What a GPU has only queued must not be charged to whoever waits for it next.
  kernels::synchronize(args_.model.device());
  const auto end = ServingClock::now();
  if (rebuilds) rebuild_time_ += end - begin;
  args_.job.timeline.add(is_suffix ? TransferPart::kSuffix : TransferPart::kRebuild, begin, end);
  return cost;
}

kernels::Matrix CodedPrompt::logits() {
  const int64_t last_row = suffix_->rows() - 1;
  return suffix_->logits_on_device(std::span(&last_row, 1));
}

double CodedPrompt::share_of_layers(double layers) const { return layers / args_.model.config().layers; }

double CodedPrompt::run_suffix() {
  if (suffix_ == nullptr) {
    const SequenceChunk suffix = tokens(rebuild_->plan().handover_tokens, std::ssize(args_.tokens));
    suffix_ = std::make_unique<ForwardPass>(args_.model, args_.cache, std::span(&suffix, 1));
  }
  suffix_->run_layer();
  return static_cast<double>(suffix_->rows()) * share_of_layers(1);
}

double CodedPrompt::run_native() {
  const auto rows = static_cast<double>(rebuild_->running_tokens());
  rebuild_->run_layer();
  return rows * share_of_layers(1);
}

// A layer of a chunk at a time, so that what arrives meanwhile is not kept waiting.
bool CodedPrompt::exact_pending() const { return exact_ && exact_->done_tokens() < args_.wish.handover_tokens; }

double CodedPrompt::run_exact() {
  if (!exact_->running()) {
    exact_rows_ = std::min(args_.chunk_tokens, args_.wish.handover_tokens - exact_->done_tokens());
    exact_->begin(exact_rows_);
  }
  exact_->run_layer();
  return static_cast<double>(exact_rows_) * share_of_layers(1);
}

double CodedPrompt::run_sinks() {
  const SequenceChunk sinks = tokens(args_.wish.held_tokens, args_.sinks);
  ForwardPass pass(args_.model, args_.cache, std::span(&sinks, 1));
  for (int32_t layer = 0; layer + 1 < args_.model.config().layers; ++layer) pass.run_layer();
  pass.run_keys_values_only();
  sinks_pending_ = false;
  return static_cast<double>(pass.rows());
}

// The first message whose prediction is possible; one that came early waits for what it depends on.
std::deque<ReceivedMessage>::const_iterator CodedPrompt::next_message() const {
  return std::ranges::find_if(messages_,
                              [this](const ReceivedMessage& message) { return rebuild_->applicable(message); });
}

std::deque<CodeBlock>::const_iterator CodedPrompt::next_block() const {
  return std::ranges::find_if(blocks_, [this](const CodeBlock& block) { return rebuild_->applicable(block); });
}

// Blocks take memory of the GPU: where many wait, others are read only where nothing else leads on.
bool CodedPrompt::may_read() const {
  if (messages_.empty()) return false;
  const bool few = std::ssize(reading_) < kMostReadings && std::ssize(blocks_) < kMostBlocks;
  return few || (reading_.empty() && next_block() == blocks_.end());
}

bool CodedPrompt::rebuild_possible() const {
  if (rebuild_->running()) return true;
  if (rebuild_->reads_ahead()) {
    // What is being read is waited for only where nothing else can be done.
    const bool read = !reading_.empty() && (reading_.front()->finished() || !exact_pending());
    return may_read() || read || next_block() != blocks_.end();
  }
  return next_message() != messages_.end();
}

Result<double> CodedPrompt::rebuild() {
  // A native span that has not begun takes along what is here behind its tokens.
  if (!rebuild_->reads_ahead() && next_message() != messages_.end()) return rebuild_one();
  if (rebuild_->running()) return run_native();
  const auto finish_readings = [this](const auto& next) -> Result<Done> {
    while (!reading_.empty() && next()) {
      if (auto read = finish_reading(); !read) return read;
    }
    return Done{};
  };
  if (auto read = finish_readings([this] { return reading_.front()->finished(); }); !read) return read.failure();
  if (may_read()) return begin_reading();
  const auto waits = [this] { return next_block() == blocks_.end() && !exact_pending(); };
  if (auto read = finish_readings(waits); !read) return read.failure();
  const auto block = next_block();
  if (block == blocks_.end()) return 0.0;
  rebuild_->apply(*block);
  blocks_.erase(block);
  return 0.0;
}

double CodedPrompt::count(const ReceivedMessage& message) {
  wire_bytes_ += static_cast<int64_t>(message.header().payload_bytes + kMessageHeaderBytes);
  ++wire_messages_;
  return message.header().token_count * share_of_layers(kCostOfDecoding * message.header().layer_count);
}

Result<double> CodedPrompt::begin_reading() {
  const auto end = messages_.begin() + std::min(std::ssize(messages_), kMostReadAhead);
  std::vector<ReceivedMessage> messages(std::make_move_iterator(messages_.begin()), std::make_move_iterator(end));
  messages_.erase(messages_.begin(), end);
  auto reading = rebuild_->begin_reading(messages);
  if (!reading) return reading.failure();
  reading_.push_back(std::move(reading.value()));
  double cost = 0;
  for (ReceivedMessage& message : messages) {
    cost += count(message);
    args_.on_read(std::move(message));
  }
  return cost;
}

Result<Done> CodedPrompt::finish_reading() {
  auto blocks = reading_.front()->finish();
  reading_.pop_front();
  if (!blocks) return blocks.failure();
  std::ranges::move(blocks.value(), std::back_inserter(blocks_));
  return Done{};
}

Result<double> CodedPrompt::rebuild_one() {
  const auto at = messages_.begin() + (next_message() - messages_.cbegin());
  ReceivedMessage message(std::move(*at));
  messages_.erase(at);
  if (auto applied = rebuild_->apply(message); !applied) return applied.failure();
  const double cost = count(message);
  args_.on_read(std::move(message));
  return cost;
}

SequenceChunk CodedPrompt::tokens(int64_t begin, int64_t end) const {
  return {.pages = &args_.job.pages,
          .first_position = begin,
          .tokens = args_.tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
          .adapter = args_.adapter};
}

}  // namespace scd
