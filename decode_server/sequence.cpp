#include "decode_server/sequence.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/log/log.h"

namespace scd {
namespace {

constexpr int64_t kBlockTokens = 16;  // hand-over and skipped tokens are counted in these (proto/scd/v1/prefill.proto)
// How long the last message of an answer may wait for the prefill server's account of its own work.
constexpr std::chrono::milliseconds kAccountPatience{100};
// Generations of one transfer: more than there are prefill servers.
constexpr uint32_t kTriesUntilSuspended = 1 << 16;

// Errors that no fallback may hide: the request or the installation is wrong.
bool is_decisive(ErrorCode code) {
  return code == ErrorCode::kInvalidArgument || code == ErrorCode::kFailedPrecondition ||
         code == ErrorCode::kNotFound || code == ErrorCode::kUnimplemented || code == ErrorCode::kPermissionDenied;
}

}  // namespace

std::optional<TransferWish> plan_transfer(const DecodeConfig& config, const CompletionRequest& request,
                                          int64_t held_tokens) {
  if (request.mode == TransferMode::kOracle || config.prefill.endpoints.empty()) return std::nullopt;
  const int64_t tokens = std::ssize(request.prompt);
  const int64_t suffix = std::max<int64_t>(config.codec.suffix_tokens, 1);
  TransferWish wish{.held_tokens = held_tokens};
  wish.handover_tokens = (tokens - std::min(suffix, tokens)) / kBlockTokens * kBlockTokens;
  wish.skip_tokens = config.codec.sinks / kBlockTokens * kBlockTokens;
  const bool coded = request.mode != TransferMode::kExact && request.exact_layers.has_value();
  wish.first_layer = coded ? *request.exact_layers : config.codec.exact_layer0 ? 1 : 0;
  wish.predicts = coded && request.predicts;
  if (wish.handover_tokens <= config.codec.sinks) return std::nullopt;
  const int64_t missing = wish.handover_tokens - held_tokens;
  if (missing <= (held_tokens > 0 ? config.prefix_cache.max_uncached_tail_tokens : 0)) return std::nullopt;
  return wish;
}

Sequence::Sequence(const SequenceContext& context, std::shared_ptr<DecodeJob> job)
    : context_(context),
      job_(std::move(job)),
      tokens_(job_->request.prompt),
      kept_codes_(context.kept_codes),
      generation_(job_->request, context.tokenizer, context.model.config().end_of_sequence) {
  if (job_->request.mode == TransferMode::kExact && job_->model->identity.adapter_unmerged) {
    stays_here_ = true;
    account_.codec_reason = "adapter: beside the weights it rounds otherwise than in any prefill server's";
  }
  begin_prompt();
}

Sequence::~Sequence() {
  coded_.reset();
  job_->pages.release();
  context_.transfers.end(job_->id);
}

void Sequence::begin_prompt() {
  computed_ = job_->held_tokens;
  chunk_part_ = TransferPart::kPrefill;
  generation_number_ = suspensions_ * kTriesUntilSuspended;
  if (!first_token_given()) clear_account();
  const auto wish = stays_here_ ? std::nullopt : plan_transfer(context_.config, job_->request, job_->held_tokens);
  if (wish) {
    start_coded(*wish);
  } else {
    start_local();
  }
}

void Sequence::start_coded(TransferWish wish) {
  wish.tries_before = generation_number_;
  coded_ = std::make_unique<CodedPrompt>(
      CodedPrompt::Args{.model = context_.model,
                        .cache = context_.cache,
                        .job = *job_,
                        .adapter = job_->model->adapter.get(),
                        .tokens = tokens_,
                        .wish = wish,
                        .sinks = context_.config.codec.sinks,
                        .chunk_tokens = context_.config.limits.prefill_chunk_tokens,
                        .on_read = [this](ReceivedMessage message) {
                          const uint32_t sequence = message.header().sequence;
                          kept_codes_.add(std::move(message));  // frees the slot before the sender learns of it
                          context_.transfers.chunk_done({job_->id, generation_number_}, sequence);
                        }});
  asked_ = !kept_codes_.complete(wish.held_tokens);
  if (asked_) {
    kept_codes_.clear();
    return context_.transfers.start(job_, wish);
  }
  TransferPlan plan = kept_codes_.plan(wish.held_tokens);
  account_for(plan);
  begin_rebuild(std::move(plan));
  for (ReceivedMessage& message : kept_codes_.take(wish.held_tokens)) coded_->push_again(std::move(message));
}

void Sequence::start_local() {
  coded_.reset();
  transferring_ = false;
  origins_ = {{0, job_->held_origin}};
  origin_known_ = true;
  if (!first_token_given() && !job_->held_origin.exact()) account_.codec = job_->held_origin.codec;
  tell_prompt(account_.codec);
}

void Sequence::tell_prompt(const std::optional<CodecChoice>& codec) {
  if (std::exchange(prompt_told_, true)) return;
  job_->sink().on_prompt({.prompt_tokens = std::ssize(job_->request.prompt),
                          .cached_tokens = std::max(account_.cached_tokens, account_.prefix_cached_tokens),
                          .prefix_cached_tokens = account_.prefix_cached_tokens,
                          .codec = codec});
}

void Sequence::clear_account() {
  TransferAccount cleared;
  cleared.prefix_cached_tokens = cleared.handover_tokens = job_->held_tokens;
  cleared.arrival = job_->received_at;
  if (stays_here_) {  // and it still is why
    cleared.codec_reason = account_.codec_reason;
    cleared.forecast = account_.forecast;
    cleared.fallback_reason = account_.fallback_reason;
  }
  account_ = std::move(cleared);
}

void Sequence::enter(TransferKey key) {
  if (key.generation == generation_number_) return;
  generation_number_ = key.generation;
  coded_->forget_messages();
  kept_codes_.clear();
}

void Sequence::transfer_accepted(TransferKey key, TransferPlan plan) {
  if (coded_ == nullptr || key.generation < generation_number_) return;
  enter(key);
  transferring_ = true;
  account_for(plan);
  tell_prompt(plan.codec);
  kept_codes_.begin(plan);
  begin_rebuild(std::move(plan));
}

void Sequence::account_for(const TransferPlan& plan) {
  if (first_token_given()) return;
  account_.codec = plan.codec;
  account_.codec_reason = plan.codec_reason;
  coded_tokens_ = plan.handover_tokens - plan.first_token;
  account_.predicted_seconds.reset();
  if (plan.predicted_seconds_per_token) {
    account_.predicted_seconds = *plan.predicted_seconds_per_token * static_cast<double>(coded_tokens_);
  }
  account_.cached_tokens = plan.cached_tokens;
  account_.handover_tokens = plan.handover_tokens;
  account_.prefill_endpoint = plan.endpoint;
  account_.forecast = plan.forecast;
}

void Sequence::begin_rebuild(TransferPlan plan) {
  origin_known_ = plan.origin.has_value();
  origins_ = {{0, job_->held_origin}};
  const int64_t computed_here = std::max<int64_t>(context_.config.codec.sinks, job_->held_tokens);
  if (plan.origin) origins_.push_back({computed_here, origin_over(job_->held_origin, *plan.origin)});
  coded_->begin(std::move(plan));
}

void Sequence::message_arrived(TransferKey key, ReceivedMessage message) {
  if (coded_ == nullptr || key.generation < generation_number_) return;
  enter(key);
  if (!first_token_given()) codes_generation_ = key.generation;
  coded_->push(std::move(message));
}

void Sequence::transfer_restarted(TransferKey key) {
  if (coded_ != nullptr && key.generation > generation_number_) enter(key);
}

void Sequence::transfer_declined(TransferKey key, LocalChoice choice) {
  if (coded_ == nullptr || key.generation < generation_number_) return;
  if (!first_token_given()) {
    clear_account();
    account_.codec_reason = std::move(choice.reason);
    account_.forecast = choice.forecast;
  }
  stays_here_ = true;
  start_local();
}

void Sequence::transfer_finished(TransferKey key) {
  if (key.generation != generation_number_) return;
  transferring_ = false;
  end_transfer_when_done();
}

// Slots and stream are others' again while this sequence generates.
void Sequence::end_transfer_when_done() {
  if (generating_ && !transferring_) context_.transfers.end(job_->id);
}

Result<Done> Sequence::transfer_failed(TransferKey key, const Failure& failure) {
  if (key.generation < generation_number_) return Done{};
  transferring_ = false;
  if (coded_ == nullptr) return Done{};  // the prefix is complete, or computed here already
  const bool differs = job_->request.needs_one_model() && failure.code == ErrorCode::kFailedPrecondition;
  if (!differs && is_decisive(failure.code)) return failure;
  const FallbackOptions& fallback = context_.config.fallback;
  if (!differs && !fallback.local_prefill) return failure;
  const int64_t tokens = std::ssize(job_->request.prompt);
  if (!differs && tokens > fallback.local_prefill_max_tokens) {
    return Failure{failure.code, failure.message + "; the prompt's " + std::to_string(tokens) +
                                     " tokens exceed fallback.local_prefill_max_tokens (" +
                                     std::to_string(fallback.local_prefill_max_tokens) + ")"};
  }
  if (!first_token_given()) {
    clear_account();
    (differs ? account_.codec_reason : account_.fallback_reason) = failure.message;
  }
  if (!differs) {
    log_warning("fallback_local_prefill", {{"request", job_->id}, {"tokens", tokens}, {"reason", failure.message}});
  }
  stays_here_ = true;
  start_local();
  return Done{};
}

double Sequence::run_piece(bool by_layers) {
  const CodedStep step = coded_->next(by_layers);
  if (step == CodedStep::kFirstToken) {
    computed_ = tokens();
    const auto begin = ServingClock::now();
    Sampler* const own = &sampler();
    accept(context_.next_tokens.of({&own, 1}, coded_->logits()).front(), begin);
    return 0;
  }
  if (step == CodedStep::kPrefixComplete) {
    computed_ = coded_->handover_tokens();
    chunk_part_ = TransferPart::kSuffix;
    end_coded();
    return 0;
  }
  const Result<double> cost = coded_->run(by_layers);
  if (cost) return cost.value();
  if (!asked_) {  // kept, and no longer what came
    log_warning("kept_codes_unusable", {{"request", job_->id}, {"reason", cost.failure().message}});
    kept_codes_.clear();
    begin_prompt();
    return 0;
  }
  coded_->forget_messages();
  kept_codes_.clear();
  context_.transfers.reject({job_->id, generation_number_}, cost.failure());
  return 0;
}

void Sequence::end_coded() {
  if (coded_ == nullptr) return;
  if (!first_token_given()) {
    account_.wire_bytes = coded_->wire_bytes();
    account_.wire_messages = coded_->wire_messages();
    rebuild_time_ = coded_->rebuild_time();
  }
  coded_.reset();
}

int64_t Sequence::tokens_left() const {
  return coded_ != nullptr || suspended_ || finished_ ? 0 : tokens() - computed_;
}

PromptInLine Sequence::in_line() const {
  const bool on_gpu = context_.model.device() == kernels::Device::kGpu;
  return {precedence(), tokens() - computed_, age_tokens(age_steps, context_.config.limits.step_tokens(on_gpu))};
}

SequenceChunk Sequence::chunk(int64_t count) const {
  return {.pages = &job_->pages,
          .first_position = computed_,
          .tokens = std::span(tokens_).subspan(static_cast<size_t>(computed_), static_cast<size_t>(count)),
          .adapter = job_->model->adapter.get()};
}

SequenceChunk Sequence::chunk_after_next() const {
  SequenceChunk next = chunk(1);
  ++next.first_position;
  return next;
}

void Sequence::worked(ServingClock::time_point begin, ServingClock::time_point end) {
  if (prompt_pending()) job_->timeline.add(chunk_part_, begin, end);
}

void Sequence::accept(const SampledToken& token, ServingClock::time_point begin) {
  step(generation_.take(token), begin);
}

void Sequence::step(Generation::Step step, ServingClock::time_point begin) {
  end_coded();
  tokens_.push_back(generation_.last_token());
  job_->sink().on_delta(std::move(step.delta));
  if (!first_token_given()) {
    first_token_at_ = ServingClock::now();
    job_->timeline.add(TransferPart::kFirstStep, begin, *first_token_at_);
  }
  if (step.finish) {
    finished_ = std::move(step);
    account_deadline_ = ServingClock::now() + (transferring_ ? kAccountPatience : std::chrono::milliseconds(0));
  }
  if (!std::exchange(generating_, true)) {
    keep_pages();
    end_transfer_when_done();
  } else if (finished_) {
    keep_pages();
  }
  if (!finished_) return;
  job_->pages.release();
  kept_codes_.clear();
}

void Sequence::keep_pages() {
  if (!origin_known_) return;
  context_.prefixes.insert({.salt = job_->request.cache_salt,
                            .tokens = std::span(tokens_).first(static_cast<size_t>(computed_)),
                            .runs = origins_,
                            .space = job_->model->prefixes.id()},
                           job_->pages);
}

void Sequence::mark_suspended() {
  suspended_ = true;
  generating_ = false;
  ++suspensions_;
}

void Sequence::give_up_pages() {
  SCD_CHECK(suspended_, "a sequence that was suspended");
  // What has come, or was kept, is as good as what was rebuilt, unless more is to come.
  if (coded_ != nullptr && !transferring_) {
    for (ReceivedMessage& message : coded_->take_messages()) kept_codes_.add(std::move(message));
  }
  coded_.reset();
  transferring_ = false;
  keep_pages();
  job_->pages.release();
  context_.transfers.end(job_->id);
}

Result<Done> Sequence::resume() {
  DecodeJob& job = *job_;
  PageTable pages = context_.cache.pool().make_table();
  PrefixCache::Found found;
  if (job.request.reads_prefix_cache) {
    found = context_.prefixes.find({.salt = job.request.cache_salt,
                                    .tokens = std::span(tokens_).first(tokens_.size() - 1),
                                    .origin = job_->model->codecs.coarsest(job.request, tokens()),
                                    .space = job.model->prefixes.id()},
                                   pages);
  }
  if (auto reserved = pages.reserve(tokens()); !reserved) return reserved;
  job.pages = std::move(pages);
  job.held_tokens = found.tokens;
  job.held_origin = found.origin;
  suspended_ = false;
  begin_prompt();
  return Done{};
}

bool Sequence::ready_to_end(ServingClock::time_point now) const {
  return finished_ && (!transferring_ || now >= account_deadline_);
}

void Sequence::close_account() {
  account_.preemptions = suspensions_;
  account_.timeline = job_->timeline.spans();
  std::erase_if(account_.timeline, [this](const TransferSpan& span) { return span.begin >= *first_token_at_; });
  std::sort(account_.timeline.begin(), account_.timeline.end(),
            [](const TransferSpan& a, const TransferSpan& b) { return a.begin < b.begin; });
  account_.times = attribute_time(job_->received_at, *first_token_at_, account_.timeline);
  // What a request gave its pages up for is in no forecast.
  if (suspensions_ > 0) account_.forecast.reset();
  if (account_.forecast) {
    account_.first_token_seconds = std::chrono::duration<double>(*first_token_at_ - account_.forecast->made_at).count();
    context_.forecast.observe(*account_.forecast, account_.first_token_seconds, ServingClock::now());
  }
  if (account_.wire_bytes > 0) {
    const TransferCost cost = transfer_cost();
    job_->model->codecs.observe(cost);
    account_.measured_seconds = std::chrono::duration<double>(cost.sum()).count();
    const int64_t bf16_bytes =
        (account_.handover_tokens - account_.prefix_cached_tokens) * context_.cache.shape().bf16_bytes_per_token();
    account_.ratio_to_bf16 = static_cast<double>(bf16_bytes) / static_cast<double>(account_.wire_bytes);
  }
}

TransferCost Sequence::transfer_cost() const {
  return {.codec = *account_.codec,
          .endpoint = account_.prefill_endpoint,
          .tokens = coded_tokens_,
          .fresh_tokens = std::min(coded_tokens_, account_.handover_tokens - account_.cached_tokens),
          .wire_bytes = account_.wire_bytes,
          .wire = busy_time(job_->timeline.wire_of(codes_generation_), TransferPart::kWire),
          .encode = busy_time(account_.timeline, TransferPart::kEncode),
          .rebuild = rebuild_time_};
}

CompletionEnd Sequence::take_end() {
  close_account();
  return {.reason = *finished_->finish,
          .stopped_by = std::move(finished_->stopped_by),
          .prompt_tokens = std::ssize(job_->request.prompt),
          .completion_tokens = generation_.tokens(),
          .account = std::move(account_)};
}

}  // namespace scd
