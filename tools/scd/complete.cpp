#include "tools/scd/complete.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include "common/base/error.h"
#include "tools/scd/client.h"
#include "tools/scd/client_options.h"

namespace scd {
namespace {

struct CompleteOptions {
  ClientOptions client;
  std::optional<std::string> prompt;
  std::vector<int32_t> ids;
  std::string model;
  std::string codec = "auto";
  uint32_t max_tokens = 128;
  uint32_t min_tokens = 0;
  float temperature = 0;
  float top_p = 1;
  uint32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::string> logit_bias;  // ID:BIAS
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;
  std::optional<uint32_t> logprobs;
  int32_t priority = 0;
  std::string cache_salt;
  bool skip_prefix_cache = false;
  bool ignore_eos = false;
  bool json = false;
};

std::string read_standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void add_logit_bias(const std::string& text, v1::CompleteRequest& request) {
  int32_t id = 0;
  float bias = 0;
  const char* const end = text.data() + text.size();
  const auto [colon, wrong_id] = std::from_chars(text.data(), end, id);
  if (wrong_id == std::errc() && colon != end && *colon == ':') {
    const auto [rest, wrong_bias] = std::from_chars(colon + 1, end, bias);
    if (wrong_bias == std::errc() && rest == end) {
      (*request.mutable_logit_bias())[id] = bias;
      return;
    }
  }
  throw Error(ErrorCode::kInvalidArgument, "--logit-bias '" + text + "': expected ID:BIAS, such as 50:-100");
}

v1::CompleteRequest request_of(const CompleteOptions& options) {
  v1::CompleteRequest request;
  if (!options.ids.empty()) {
    for (const int32_t id : options.ids) request.mutable_token_ids()->add_ids(id);
  } else {
    request.set_text(options.prompt ? *options.prompt : read_standard_input());
  }
  request.set_model(options.model);
  request.set_max_tokens(options.max_tokens);
  request.set_min_tokens(options.min_tokens);
  request.set_temperature(options.temperature);
  request.set_top_p(options.top_p);
  request.set_top_k(options.top_k);
  request.set_min_p(options.min_p);
  request.set_repetition_penalty(options.repetition_penalty);
  request.set_presence_penalty(options.presence_penalty);
  request.set_frequency_penalty(options.frequency_penalty);
  for (const std::string& bias : options.logit_bias) add_logit_bias(bias, request);
  if (options.seed) request.set_seed(*options.seed);
  for (const std::string& stop : options.stop) request.add_stop(stop);
  for (const int32_t id : options.stop_ids) request.add_stop_token_ids(id);
  if (options.logprobs) request.set_logprobs(*options.logprobs);
  request.set_ignore_eos(options.ignore_eos);
  request.set_priority(options.priority);
  request.set_cache_salt(options.cache_salt);
  request.set_skip_reading_prefix_cache(options.skip_prefix_cache);
  set_codec(request, options.codec);
  return request;
}

void print_account(const Completion& completion) {
  const v1::TransferAccount& account = completion.finish.transfer();
  std::fprintf(stderr,
               "%s: %u prompt tokens (%u from codes or kept; %u kept here, %u codes cached), %u generated; %llu bytes "
               "on the wire, %.1fx smaller "
               "than BF16\n"
               "TTFT %.1f ms = queue %.1f + prefill %.1f + encode %.1f + wire %.1f + rebuild %.1f + suffix %.1f + "
               "first step %.1f + orchestration %.1f\n",
               codec_name(account.codec()).c_str(), completion.finish.usage().prompt_tokens(),
               account.handover_tokens(), account.prefix_cached_tokens(), account.cached_tokens(),
               completion.finish.usage().completion_tokens(), static_cast<unsigned long long>(account.wire_bytes()),
               account.ratio_to_bf16(), account.ttft_ms(), account.queue_ms(), account.prefill_ms(),
               account.encode_ms(), account.wire_ms(), account.rebuild_ms(), account.suffix_ms(),
               account.first_step_ms(), account.orchestration_ms());
  if (!account.codec_reason().empty()) std::fprintf(stderr, "chosen: %s\n", account.codec_reason().c_str());
  if (!account.fallback_reason().empty()) std::fprintf(stderr, "fallback: %s\n", account.fallback_reason().c_str());
}

void run(const CompleteOptions& options) {
  CompletionClient client(options.client);
  const v1::CompleteRequest request = request_of(options);
  if (options.json) {
    std::cout << to_json(client.complete(request)).dump() << "\n";
    return;
  }
  const Completion completion =
      client.complete(request, [](const std::string& text) { std::cout << text << std::flush; });
  std::cout << "\n";
  print_account(completion);
}

}  // namespace

void add_complete_command(CLI::App& app) {
  const auto options = std::make_shared<CompleteOptions>();
  CLI::App* command =
      app.add_subcommand("complete",
                         "Complete a prompt on a running pair and print the answer as it streams.\n"
                         "  scd complete 'The capital of France is'\n"
                         "  scd complete --codec raw --json < prompt.txt\n"
                         "The answer goes to standard output, the account of the transfer to standard error.");
  add_client_options(*command, options->client);
  command->add_option("prompt", options->prompt, "The prompt; standard input when left out");
  command->add_option("--ids", options->ids, "The prompt as token ids, comma-separated, used as they are")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--model", options->model, "Model by name, as ListModels gives it; default: the first");
  command->add_option("--codec", options->codec,
                      "How the prompt's state is had: auto (the server's configuration), raw, lossless, int8, int4, "
                      "scd, rd (rd@2: level 2), kvtc, droidspeak, lora_delta, oracle (the decode server computes it "
                      "itself) or exact (nothing lossy)");
  command->add_option("--max-tokens", options->max_tokens, "Most tokens to generate")->capture_default_str();
  command->add_option("--min-tokens", options->min_tokens, "No end before so many tokens")->capture_default_str();
  command->add_option("--temperature", options->temperature, "0 is greedy")->capture_default_str();
  command->add_option("--top-p", options->top_p, "Share of probability kept")->capture_default_str();
  command->add_option("--top-k", options->top_k, "Likeliest tokens kept; 0: all")->capture_default_str();
  command->add_option("--min-p", options->min_p, "Least share of the likeliest token's probability");
  command->add_option("--repetition-penalty", options->repetition_penalty, "Over 1 discourages repeats");
  command->add_option("--presence-penalty", options->presence_penalty,
                      "Subtracted from the logit of every token generated before, -2 to 2");
  command->add_option("--frequency-penalty", options->frequency_penalty,
                      "Subtracted from a token's logit each time it was generated, -2 to 2");
  command
      ->add_option("--logit-bias", options->logit_bias,
                   "ID:BIAS, -100 to 100: added to that token's logit; may be given several times")
      ->allow_extra_args(false);
  command->add_option("--seed", options->seed, "The same seed gives the same text");
  command->add_option("--stop", options->stop, "End before this string; may be given several times")
      ->allow_extra_args(false);
  command->add_option("--stop-id", options->stop_ids, "End at this token id; may be given several times")
      ->allow_extra_args(false);
  command->add_option("--logprobs", options->logprobs, "Log-probabilities of so many likeliest tokens (with --json)");
  command->add_option("--priority", options->priority, "Higher runs first among waiting requests; default 0");
  command->add_option("--cache-salt", options->cache_salt, "Share cached state only within this salt");
  command->add_flag("--skip-prefix-cache", options->skip_prefix_cache,
                    "Have the whole prompt's state computed or transferred, as if the decode server had kept nothing");
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on past end-of-sequence tokens");
  command->add_flag("--json", options->json, "Print one JSON object: text, token ids, usage, transfer account");
  command->callback([options] { run(*options); });
}

}  // namespace scd
