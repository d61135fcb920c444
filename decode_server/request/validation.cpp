#include "decode_server/request/validation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "common/codec/registry.h"

namespace scd {
namespace {

constexpr uint32_t kDefaultMaxTokens = 16;
constexpr int kMaxStopStrings = 16;
constexpr int kMaxStopIds = 1024;
constexpr size_t kMaxLogitBiases = 4096;
constexpr size_t kMaxTextBytes = 256;  // of a stop string, a salt, a user tag
constexpr uint32_t kMaxLogprobs = 20;

Failure wrong(const std::string& field, const std::string& what) {
  return {ErrorCode::kInvalidArgument, field + ": " + what};
}

std::string plain(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::string too_long(int64_t tokens, int64_t context_length) {
  return std::to_string(tokens) + " tokens; the model's context of " + std::to_string(context_length) +
         " tokens must hold the prompt and at least one more";
}

// What no tokenising can stay below; characters that a tokenizer drops count as well.
int64_t least_tokens(const Tokenizer& tokenizer, const std::string& text) {
  const size_t longest = tokenizer.longest_token_bytes();
  return static_cast<int64_t>((text.size() + longest - 1) / longest);
}

// Collects the first failure, so that checks read as a list.
class Checker {
 public:
  void range(const char* field, double value, double lowest, double highest) {
    if (!(value >= lowest && value <= highest)) {
      fail(field, plain(value) + " is out of range; expected a number from " + plain(lowest) + " to " + plain(highest));
    }
  }
  void length(const char* field, const std::string& value, size_t highest) {
    if (value.size() > highest) {
      fail(field, std::to_string(value.size()) + " bytes; expected at most " + std::to_string(highest));
    }
  }
  void token(const char* field, int64_t id, int32_t vocab) {
    if (id < 0 || id >= vocab) {
      fail(field,
           "token id " + std::to_string(id) + " is not in the vocabulary; expected [0, " + std::to_string(vocab) + ")");
    }
  }
  void fail(const char* field, const std::string& what) {
    if (!failure_) failure_ = wrong(field, what);
  }
  void fail(const Failure& failure) {
    if (!failure_) failure_ = failure;
  }
  Result<Done> outcome() const { return failure_ ? Result<Done>(*failure_) : Result<Done>(Done{}); }

 private:
  std::optional<Failure> failure_;
};

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

SamplingRequest sampling_of(const v1::CompleteRequest& request, int32_t vocab, Checker& check) {
  SamplingRequest sampling;
  sampling.options.temperature = request.has_temperature() ? request.temperature() : 1.0f;
  sampling.options.top_p = request.has_top_p() ? request.top_p() : 1.0f;
  sampling.options.top_k = static_cast<int32_t>(std::min<uint32_t>(request.top_k(), static_cast<uint32_t>(vocab)));
  sampling.options.min_p = request.min_p();
  sampling.presence_penalty = request.presence_penalty();
  sampling.frequency_penalty = request.frequency_penalty();
  sampling.repetition_penalty = request.has_repetition_penalty() ? request.repetition_penalty() : 1.0f;
  sampling.seed = request.has_seed() ? request.seed() : random_seed();
  sampling.min_tokens =
      static_cast<int32_t>(std::min<uint32_t>(request.min_tokens(), std::numeric_limits<int32_t>::max()));
  sampling.logprobs = request.has_logprobs() ? static_cast<int32_t>(request.logprobs()) : -1;
  check.range("temperature", sampling.options.temperature, 0, 100);
  if (!(sampling.options.top_p > 0)) check.fail("top_p", "expected a number above 0, at most 1");
  check.range("top_p", sampling.options.top_p, 0, 1);
  check.range("min_p", sampling.options.min_p, 0, 1);
  check.range("presence_penalty", sampling.presence_penalty, -2, 2);
  check.range("frequency_penalty", sampling.frequency_penalty, -2, 2);
  if (!(sampling.repetition_penalty > 0) || !std::isfinite(sampling.repetition_penalty)) {
    check.fail("repetition_penalty", "expected a number above 0");
  }
  if (request.has_logprobs() && request.logprobs() > kMaxLogprobs) {
    check.fail("logprobs", std::to_string(request.logprobs()) + " is out of range; expected at most " +
                               std::to_string(kMaxLogprobs));
  }
  if (request.logit_bias().size() > kMaxLogitBiases) {
    check.fail("logit_bias", std::to_string(request.logit_bias().size()) + " tokens; expected at most " +
                                 std::to_string(kMaxLogitBiases));
  }
  for (const auto& [id, bias] : request.logit_bias()) {
    check.token("logit_bias", id, vocab);
    check.range("logit_bias", bias, -100, 100);
    sampling.logit_bias.emplace_back(id, bias);
  }
  return sampling;
}

StopRequest stop_of(const v1::CompleteRequest& request, int32_t vocab, Checker& check) {
  StopRequest stop;
  const uint32_t max_tokens = request.has_max_tokens() ? request.max_tokens() : kDefaultMaxTokens;
  if (max_tokens == 0) check.fail("max_tokens", "0; expected at least 1");
  if (request.min_tokens() > max_tokens) {
    check.fail("min_tokens",
               std::to_string(request.min_tokens()) + " is more than max_tokens, " + std::to_string(max_tokens));
  }
  stop.max_tokens = static_cast<int32_t>(std::min<uint32_t>(max_tokens, std::numeric_limits<int32_t>::max()));
  stop.ignore_end_of_sequence = request.ignore_eos();
  if (request.stop_size() > kMaxStopStrings) {
    check.fail("stop",
               std::to_string(request.stop_size()) + " strings; expected at most " + std::to_string(kMaxStopStrings));
  }
  for (const std::string& text : request.stop()) {
    if (text.empty()) check.fail("stop", "an empty string; expected 1 to 256 bytes");
    check.length("stop", text, kMaxTextBytes);
    stop.strings.push_back(text);
  }
  if (request.stop_token_ids_size() > kMaxStopIds) {
    check.fail("stop_token_ids",
               std::to_string(request.stop_token_ids_size()) + " ids; expected at most " + std::to_string(kMaxStopIds));
    return stop;
  }
  for (const int32_t id : request.stop_token_ids()) {
    check.token("stop_token_ids", id, vocab);
    stop.ids.push_back(id);
  }
  return stop;
}

// Without an id: nothing is sent.
void set_codec(const ValidationContext& context, std::optional<CodecId> id, const RankCaps& rank,
               CompletionRequest& checked, Checker& check) {
  if (!id) {
    checked.mode = TransferMode::kOracle;
    return;
  }
  checked.mode = TransferMode::kCodec;
  checked.codec = {.id = *id, .rank = needs_artifact(*id) ? rank : RankCaps{}};
  checked.form_open = has_levels(*id);
  if (needs_artifact(*id)) {
    checked.exact_layers = context.exact_layers;
    checked.predicts = context.predicts;
  }
  if (needs_artifact(*id) && context.artifact_codec != id) {
    check.fail({ErrorCode::kFailedPrecondition,
                "codec: this server has no artifact for " + std::string(to_string(*id)) + "; set codec.artifact"});
  }
}

// A level that is named is one of the artifact's: that is a choice as well.
void set_configured_codec(const ValidationContext& context, const RankCaps& rank, CompletionRequest& checked,
                          Checker& check) {
  const CodecOptions& options = context.config.codec;
  const bool automatic = options.mode == CodecMode::kAuto;
  const std::optional<CodecId> id =
      automatic ? context.artifact_codec.value_or(CodecId::kRaw) : configured_codec(options);
  set_codec(context, id, rank, checked, check);
  checked.level_open = true;
  if (automatic && (options.level < 0 || !needs_artifact(*id))) checked.mode = TransferMode::kAuto;
}

void set_form(const v1::CodecChoice& choice, CompletionRequest& checked, Checker& check) {
  if (choice.form() == v1::CODE_FORM_UNSPECIFIED) return;
  if (!v1::CodeForm_IsValid(choice.form()) || !checked.form_open) {
    check.fail("codec.choice.form", std::to_string(static_cast<int>(choice.form())) +
                                        "; expected CODE_FORM_UNSPECIFIED, or with CODEC_RD and CODEC_KVTC "
                                        "CODE_FORM_ENTROPY or CODE_FORM_PACKED");
  }
  checked.codec.rank.packed = choice.form() == v1::CODE_FORM_PACKED;
  checked.form_open = false;
}

void codec_of(const ValidationContext& context, const v1::CodecOverride& codec, CompletionRequest& checked,
              Checker& check) {
  const CodecOptions& options = context.config.codec;
  RankCaps configured{options.rank.key, options.rank.value, options.rank.hidden, context.level};
  if (codec.override_case() == v1::CodecOverride::kExact && codec.exact()) {
    checked.mode = TransferMode::kExact;
    checked.codec = {.id = CodecId::kRaw, .rank = {}};
    return;
  }
  if (codec.override_case() != v1::CodecOverride::kChoice) {
    return set_configured_codec(context, configured, checked, check);
  }
  const v1::CodecChoice& choice = codec.choice();
  for (const uint32_t rank : {choice.rank().key(), choice.rank().value(), choice.rank().hidden()}) {
    if (rank > std::numeric_limits<uint16_t>::max())
      check.fail("codec.choice.rank", "expected at most 65535 components");
  }
  const std::optional<CodecId> id = codec_from_number(choice.codec());
  if (!id && choice.codec() != v1::CODEC_ORACLE) {
    std::string known;
    for (const CodecId each : all_codecs()) known += v1::Codec_Name(static_cast<v1::Codec>(each)) + ", ";
    check.fail("codec.choice.codec",
               std::to_string(static_cast<int>(choice.codec())) + " is unknown; expected " + known + "or CODEC_ORACLE");
    return;
  }
  const int32_t levels = id && context.artifact_codec == id ? context.levels : 1;
  if (choice.level() >= static_cast<uint32_t>(levels)) {
    check.fail("codec.choice.level",
               std::to_string(choice.level()) + "; expected a level below " + std::to_string(levels));
    return;
  }
  if (choice.has_rank()) {
    configured = {static_cast<int32_t>(choice.rank().key()), static_cast<int32_t>(choice.rank().value()),
                  static_cast<int32_t>(choice.rank().hidden())};
  }
  configured.level = static_cast<int32_t>(choice.level());
  set_codec(context, id, configured, checked, check);
  set_form(choice, checked, check);
}

}  // namespace

std::optional<CodecId> configured_codec(const CodecOptions& options) {
  return codec_from_number(static_cast<int>(options.mode));
}

Result<CompletionRequest> check_request(const ValidationContext& context, const v1::CompleteRequest& request) {
  if (request.n() > 1) {
    return Failure{ErrorCode::kUnimplemented, "n: " + std::to_string(request.n()) + " completions; expected 1"};
  }
  Checker check;
  if (request.prompt_case() == v1::CompleteRequest::PROMPT_NOT_SET)
    check.fail("prompt", "missing; set text or token_ids");
  if (request.has_text() && request.text().empty()) check.fail("text", "empty; expected at least one character");
  if (request.has_token_ids() && request.token_ids().ids().empty())
    check.fail("token_ids", "empty; expected at least one id");
  if (request.token_ids().ids_size() >= context.model.max_positions) {
    check.fail("token_ids", too_long(request.token_ids().ids_size(), context.model.max_positions));
  }
  if (const int64_t least = least_tokens(context.tokenizer, request.text()); least >= context.model.max_positions) {
    check.fail("text", "at least " + too_long(least, context.model.max_positions));
  }
  CompletionRequest checked;
  checked.sampling = sampling_of(request, context.model.vocab, check);
  checked.stop = stop_of(request, context.model.vocab, check);
  codec_of(context, request.codec(), checked, check);
  check.length("cache_salt", request.cache_salt(), kMaxTextBytes);
  check.length("user", request.user(), kMaxTextBytes);
  checked.priority = request.priority();
  checked.cache_salt = request.cache_salt();
  checked.reads_prefix_cache = !request.skip_reading_prefix_cache();
  checked.user_tag = request.user();
  if (auto outcome = check.outcome(); !outcome) return outcome.failure();
  return checked;
}

Result<Done> add_prompt(const ValidationContext& context, const v1::CompleteRequest& request,
                        CompletionRequest& checked) {
  if (request.has_token_ids()) {
    checked.prompt.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
  } else {
    try {
      checked.prompt = context.tokenizer.encode(request.text());
    } catch (const Error& error) {
      return Failure{error.code(), std::string("text: ") + error.what()};
    }
    if (checked.prompt.empty()) return wrong("text", "it has no token; expected at least one");
  }
  // A tokenizer may know more tokens than the model has rows for them.
  Checker check;
  for (const TokenId id : checked.prompt) {
    check.token(request.has_text() ? "text" : "token_ids", id, context.model.vocab);
  }
  if (auto outcome = check.outcome(); !outcome) return outcome;
  const int64_t tokens = std::ssize(checked.prompt);
  const int64_t context_length = context.model.max_positions;
  if (tokens >= context_length) {
    return wrong(request.has_text() ? "text" : "token_ids", too_long(tokens, context_length));
  }
  checked.stop.max_tokens = static_cast<int32_t>(std::min<int64_t>(checked.stop.max_tokens, context_length - tokens));
  const int64_t capacity = int64_t{context.kv_pages} * kPageTokens;
  if (tokens + checked.stop.max_tokens > capacity) {
    return Failure{ErrorCode::kResourceExhausted, "prompt and max_tokens need " +
                                                      std::to_string(tokens + checked.stop.max_tokens) +
                                                      " tokens of KV cache; this server has " +
                                                      std::to_string(capacity) + " (" + context.pages_key + ")"};
  }
  return Done{};
}

}  // namespace scd
