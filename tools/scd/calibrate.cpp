#include "tools/scd/calibrate.h"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "common/base/error.h"
#include "common/codec/calibration/algebra.h"
#include "common/codec/registry.h"
#include "common/model/fingerprint.h"
#include "common/model/model_config.h"
#include "common/tokenizer/tokenizer.h"
#include "tools/scd/calibrate_baseline.h"
#include "tools/scd/calibrate_rd.h"
#include "tools/scd/calibrate_scd.h"
#include "tools/scd/calibration.h"
#include "tools/scd/model_pair.h"
#include "tools/scd/recheck.h"

namespace scd {
namespace {

constexpr std::array<std::string_view, 6> kScdOptions{"--rank-key",     "--rank-value", "--rank-hidden",
                                                      "--patch-layers", "--pool",       "--network-width"};

struct ConsumerOptions {
  std::filesystem::path directory;
  std::filesystem::path adapter;  // empty: none
};

struct CalibrateOptions {
  ModelPairOptions pair;  // with the first consumer
  std::vector<std::filesystem::path> consumers;
  std::vector<std::filesystem::path> adapters;  // one for each consumer, or of one consumer several
  std::vector<ConsumerOptions> further;         // consumers after the first
  CalibrationTextOptions text;
  CalibrationOptions calibration;
  std::filesystem::path out;
  std::filesystem::path json;
  bool add_consumer = false;
  bool recheck = false;
  std::string codec = "scd";
  RdCommandOptions rd;
  BaselineOptions baseline;
  CodecId codec_id() const { return *codec_from_name(codec); }
};

ModelIdentity identity_of(const std::filesystem::path& directory, const std::filesystem::path& adapter) {
  const ModelFingerprint fingerprint =
      fingerprint_model(directory, adapter.empty() ? std::nullopt : std::optional(adapter));
  return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
}

CalibrationText read_text(CalibrateOptions& options) {
  options.text.seed = options.calibration.seed;
  options.text.window =
      std::min<int64_t>(options.text.window, ModelConfig::from_directory(options.pair.consumer).max_positions);
  const Tokenizer tokenizer = Tokenizer::from_file(options.pair.consumer / "tokenizer.json");
  if (options.recheck) return read_check_text(tokenizer, options.text);
  CalibrationText text = read_calibration_text(tokenizer, options.text);
  if (count_tokens(text.fit) < options.text.tokens * 9 / 10) {
    std::cerr << "scd: the text gives " << count_tokens(text.fit) << " tokens to fit on, " << options.text.tokens
              << " were asked for\n";
  }
  return text;
}

// The encoder that --out holds; none where it is free.
std::optional<ArtifactEncoder> existing_encoder(const CalibrateOptions& options) {
  if (options.add_consumer || std::filesystem::exists(options.out / "encoder")) return load_encoder(options.out);
  if (!std::filesystem::exists(options.out)) return std::nullopt;
  if (!std::filesystem::is_directory(options.out) || !std::filesystem::is_empty(options.out)) {
    throw Error(ErrorCode::kAlreadyExists, options.out.string() + " is not empty and holds no codec artifact");
  }
  return std::nullopt;
}

// Before the long work: would its result be refused?
void require_writable(const CalibrateOptions& options, const std::optional<ArtifactEncoder>& there,
                      const ModelIdentity& producer, const ModelIdentity& consumer, const CalibrationText& text) {
  if (!there) return;
  if (options.add_consumer) {
    (void)check_compatible(*there, producer).value_or_throw();
    if (to_string(there->codec) == options.codec) return;
    throw Error(ErrorCode::kFailedPrecondition, options.out.string() + " holds an encoder of codec " +
                                                    std::string(to_string(there->codec)) + ", not of --codec " +
                                                    options.codec);
  }
  if (options.codec != "scd") {
    throw Error(ErrorCode::kAlreadyExists,
                options.out.string() +
                    " holds an artifact; choose another folder, remove this one, or keep its encoder "
                    "with --add-consumer");
  }
  try {
    require_same_calibration(*there, producer, consumer, text, options.calibration);
  } catch (const Error& error) {
    throw Error(error.code(), options.out.string() + ": " + error.what() +
                                  "; choose another folder, remove this one, or keep its encoder with --add-consumer");
  }
}

// Pairs what --consumer and --consumer-adapter say, the first for the pair of models that every codec has.
void choose_consumers(CalibrateOptions& options) {
  const std::vector<std::filesystem::path>&consumers = options.consumers, &adapters = options.adapters;
  const size_t count = std::max(consumers.size(), adapters.size());
  if ((consumers.size() != count && consumers.size() != 1) || (adapters.size() != count && !adapters.empty())) {
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(consumers.size()) + " of --consumer and " + std::to_string(adapters.size()) +
                    " of --consumer-adapter: expected one base for all adapters, or one adapter (none: no adapter) for "
                    "each base");
  }
  const auto consumer = [&](size_t k) {
    ConsumerOptions chosen{consumers.size() == 1 ? consumers[0] : consumers[k], {}};
    if (!adapters.empty() && adapters[k] != "none") chosen.adapter = adapters[k];
    return chosen;
  };
  options.pair.consumer = consumer(0).directory;
  options.pair.consumer_adapter = consumer(0).adapter;
  for (size_t k = 1; k < count; ++k) options.further.push_back(consumer(k));
  if (count > 1 && (!has_levels(options.codec_id()) || options.add_consumer)) {
    throw Error(ErrorCode::kInvalidArgument,
                "several consumers: an encoder for all of them is fitted by --codec rd and kvtc; for others, and to an "
                "encoder that is there, add one consumer at a time with --add-consumer");
  }
}

void require_distinct(std::span<const CalibrationInput> inputs) {
  for (const CalibrationInput& input : inputs) {
    const auto same = [&](const CalibrationInput& other) {
      return other.consumer_identity.weights == input.consumer_identity.weights;
    };
    if (std::ranges::count_if(inputs, same) == 1) continue;
    throw Error(ErrorCode::kInvalidArgument, "two consumers are one model: " + input.consumer_identity.weights);
  }
}

void run_rd(const CalibrationInput& input, const CalibrateOptions& options,
            const std::optional<ArtifactEncoder>& there) {
  std::vector<std::shared_ptr<const Model>> models;  // shared: a consumer may be the producer
  std::vector<CalibrationInput> inputs{input};
  for (const ConsumerOptions& further : options.further) {
    const ModelIdentity identity = identity_of(further.directory, further.adapter);
    if (identity.tokenizer != input.producer_identity.tokenizer) {
      throw Error(ErrorCode::kFailedPrecondition,
                  further.directory.string() + " has another tokenizer than the producer: " + identity.tokenizer +
                      " and " + input.producer_identity.tokenizer);
    }
    models.push_back(load_model(further.directory, further.adapter, options.pair.precision, options.pair.device));
    inputs.push_back({input.producer, *models.back(), input.producer_identity, identity, input.text});
  }
  require_distinct(inputs);
  RdCommandOptions rd = options.rd;
  rd.calibration.seed = options.calibration.seed;
  rd.calibration.ridge = options.calibration.ridge;
  rd.calibration.experiment = options.calibration.experiment;
  calibrate_and_write_rd({.inputs = inputs,
                          .options = std::move(rd),
                          .max_kl = options.calibration.max_kl,
                          .out = options.out,
                          .json = options.json,
                          .encoder = options.add_consumer ? &*there : nullptr});
}

void run_baseline(const CalibrationInput& input, const CalibrateOptions& options,
                  const std::optional<ArtifactEncoder>& there) {
  BaselineOptions baseline = options.baseline;
  baseline.seed = options.calibration.seed;
  baseline.experiment = options.calibration.experiment;
  calibrate_and_write_baseline({.input = input,
                                .codec = options.codec_id(),
                                .options = std::move(baseline),
                                .native = options.rd.native,
                                .consumer_adapter = options.pair.consumer_adapter,
                                .max_kl = options.calibration.max_kl,
                                .out = options.out,
                                .json = options.json,
                                .encoder = options.add_consumer ? &*there : nullptr});
}

bool is_baseline(const CalibrateOptions& options) {
  return options.codec_id() == CodecId::kDroidSpeak || options.codec_id() == CodecId::kLoraDelta;
}

void require_lora_delta(const CalibrateOptions& options, const ModelIdentity& producer) {
  if (options.add_consumer) {
    throw Error(ErrorCode::kInvalidArgument,
                "--add-consumer: the encoder of codec lora_delta is one consumer's adapter; choose another folder");
  }
  require_adapter_of(producer, options.pair.consumer, options.pair.consumer_adapter);
}

// Text to fit on, or what is there and text to check it on.
void require_text(const CalibrateOptions& options) {
  if (!options.recheck && options.text.files.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--text is required: text to calibrate on");
  }
  if (options.recheck && options.text.check_files.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--recheck needs --check-text: text that the artifact was not fitted on");
  }
}

// Fits take and give back matrices of up to gigabytes: from the heap, which keeps them, their pages are there the next
// time. One heap for all threads: a further one holds at most 64 MiB, and would have to map what is larger.
void keep_large_memory() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
}

void run(CalibrateOptions options) {
  keep_large_memory();
  options.rd.calibration.codec = options.codec_id();
  require_text(options);
  check_rd_options(options.rd, options.add_consumer);
  choose_consumers(options);
  if (options.recheck && !options.further.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--recheck: one consumer at a time");
  }
  const std::optional<ArtifactEncoder> there = existing_encoder(options);
  const ModelIdentity producer = identity_of(options.pair.producer, options.pair.producer_adapter);
  const ModelIdentity consumer = identity_of(options.pair.consumer, options.pair.consumer_adapter);
  if (options.codec_id() == CodecId::kLoraDelta && !options.recheck) require_lora_delta(options, producer);
  const CalibrationText text = read_text(options);
  if (!options.recheck) require_writable(options, there, producer, consumer, text);
  const ModelPair pair(options.pair);
  if (pair.consumer().device() == kernels::Device::kGpu) keep_host_algebra_on_one_thread();
  const CalibrationInput input{pair.producer(), pair.consumer(), producer, consumer, text};
  if (options.recheck) {
    return recheck_and_write(
        {input, options.calibration.experiment, options.calibration.max_kl, options.out, options.json});
  }
  if (is_baseline(options)) return run_baseline(input, options, there);
  if (options.codec_id() != CodecId::kScd) return run_rd(input, options, there);
  calibrate_and_write_scd({.input = input,
                           .options = options.calibration,
                           .out = options.out,
                           .json = options.json,
                           .encoder = options.add_consumer ? &*there : nullptr});
}

// Those of other codecs.
std::vector<std::string_view> foreign_options(CodecId codec) {
  std::vector<std::string_view> foreign;
  const auto add = [&](std::span<const std::string_view> names) {
    foreign.insert(foreign.end(), names.begin(), names.end());
  };
  if (codec != CodecId::kScd) add(kScdOptions);
  if (!has_levels(codec)) {
    add(kRdEncoderOptions);
    add(kRdDecoderOptions);
  }
  if (codec != CodecId::kDroidSpeak) add(kDroidSpeakOptions);
  if (codec == CodecId::kDroidSpeak) std::erase(foreign, "--native");
  return foreign;
}

std::vector<std::string_view> fit_options() {
  std::vector<std::string_view> names{"--text", "--tokens", "--ridge", "--codec"};
  for (const std::span<const std::string_view> codecs :
       {std::span<const std::string_view>(kScdOptions), std::span<const std::string_view>(kRdEncoderOptions),
        std::span<const std::string_view>(kRdDecoderOptions), std::span<const std::string_view>(kDroidSpeakOptions)}) {
    for (const std::string_view name : codecs) names.push_back(name);
  }
  return names;
}

void add_pair_options(CLI::App& command, CalibrateOptions& options) {
  command.add_option("--producer", options.pair.producer, "Checkpoint of the prefill side")->required();
  command.add_option("--producer-adapter", options.pair.producer_adapter, "LoRA adapter merged into it");
  command
      .add_option("--consumer", options.consumers,
                  "Checkpoint of the decode side. Several, comma-separated: one encoder for all of them (rd, kvtc)")
      ->required()
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      .add_option("--consumer-adapter", options.adapters,
                  "LoRA adapter merged into it. Several: of one base, or one for each consumer (none: no adapter)")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--precision", options.pair.precision, "auto, bf16 or fp32")->capture_default_str();
  command.add_option("--device", options.pair.device, "Where models run and fits are made: cpu or cuda:N")
      ->capture_default_str();
}

void add_text_options(CLI::App& command, CalibrateOptions& options) {
  command
      .add_option("--text", options.text.files,
                  "Text to calibrate on: plain UTF-8, or .json/.jsonl question sets {context, question, answers}")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      .add_option("--check-text", options.text.check_files,
                  "Of the same kinds: text for the final check instead of a part of --text, best of the lengths that "
                  "are served; none of its contexts is fitted")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--tokens", options.text.tokens, "Tokens to fit on")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 32));
  command.add_option("--window", options.text.window, "Longest window of text, tokens")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{128}, int64_t{1} << 17));
  command
      .add_option("--held-out", options.text.held_out_contexts,
                  "Contexts (or pieces of prose) of the final check, and as many for the search: the more, the nearer "
                  "the bound that --max-kl limits is to the mean")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command
      .add_option("--held-out-questions", options.text.held_out_questions,
                  "Questions about each of these contexts, at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command.add_option("--seed", options.calibration.seed, "Of the split, the samples and the training")
      ->capture_default_str();
}

// What the encoder alone decides; an encoder that is kept has it already.
void add_encoder_options(CLI::App& command, CalibrateOptions& options) {
  CLI::Option* kept = command.add_flag("--add-consumer", options.add_consumer,
                                       "Keep the encoder that --out holds, its ranks and Patch layers included, and "
                                       "fit a decoder for this consumer only");
  command
      .add_flag("--recheck", options.recheck,
                "Fit nothing: measure the levels of the artifact in --out again on --check-text, and keep that as what "
                "max_kl is compared with")
      ->excludes(kept);
  CalibrationOptions& calibration = options.calibration;
  command.add_option("--rank-key", calibration.rank.key, "Components of a key, per head; 0: 3/4 of head_dim")
      ->check(CLI::Range(0, 65535))
      ->excludes(kept);
  command.add_option("--rank-value", calibration.rank.value, "Components of a value, per head; 0: head_dim")
      ->check(CLI::Range(0, 65535))
      ->excludes(kept);
  command.add_option("--rank-hidden", calibration.rank.hidden, "Components of a Patch layer; 0: 3/4 of hidden")
      ->check(CLI::Range(0, 65535))
      ->excludes(kept);
  command.add_option("--patch-layers", calibration.patch_layers, "How many layers to patch; -1: as the search chooses")
      ->capture_default_str()
      ->check(CLI::Range(-1, 4096))
      ->excludes(kept);
  command.add_option("--pool", calibration.pool, "Layers for which Patch is fitted and searched")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096))
      ->excludes(kept);
}

void add_fit_options(CLI::App& command, CalibrateOptions& options) {
  CalibrationOptions& calibration = options.calibration;
  command
      .add_option("--max-kl", calibration.max_kl,
                  "Fail when no level's KL on held-out text is lower, as far as the text can tell: its 95 % bound "
                  "counts; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--ridge", calibration.ridge, "Ridge strength, relative to the mean variance")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--network-width", calibration.predictor.network.width, "Of a Patch layer's network; 0: linear only")
      ->capture_default_str()
      ->check(CLI::Range(0, 65536));
}

}  // namespace

void add_calibrate_command(CLI::App& app) {
  const auto options = std::make_shared<CalibrateOptions>();
  CLI::App* command =
      app.add_subcommand("calibrate",
                         "Fit a codec (--codec) for a pair of models and write its artifact: runs both models over the "
                         "text, fits the maps of\n"
                         "every layer (scd: trains predictors for the layers worth patching, searches which to patch; "
                         "rd: measures what errors\n"
                         "cost, trains the coder's tables) and checks the result on text that nothing was fitted on. "
                         "The same input and seed give the same artifact.\n"
                         "  scd calibrate --producer BASE --consumer BASE --consumer-adapter ADAPTER \\\n"
                         "                --text train.jsonl,prose.txt --tokens 32768 --out artifacts/pair");
  command
      ->add_option("--codec", options->codec,
                   "rd (rate-distortion codes), scd (Reuse and Patch as published); baselines: kvtc (transform "
                   "coding of the producer's own cache), droidspeak (raw, critical layers recomputed by the "
                   "consumer) and lora_delta (raw and the term of the consumer's own adapter)")
      ->check(CLI::IsMember({"rd", "scd", "kvtc", "droidspeak", "lora_delta"}))
      ->capture_default_str();
  add_rd_options(*command, options->rd);
  add_baseline_options(*command, options->baseline);
  add_pair_options(*command, *options);
  add_text_options(*command, *options);
  add_encoder_options(*command, *options);
  add_fit_options(*command, *options);
  command
      ->add_option("--out", options->out,
                   "Directory of the artifact: new, empty, or holding what the same calibration wrote")
      ->required();
  command->add_option("--json", options->json, "Write the report to this file");
  command->callback([options, command] {
    const auto refuse = [&](std::string_view name, const std::string& why) {
      if (command->get_option(std::string(name))->count() > 0) {
        throw Error(ErrorCode::kInvalidArgument, std::string(name) + why);
      }
    };
    if (options->recheck) {
      for (const std::string_view name : fit_options()) refuse(name, " is of a fit: --recheck fits nothing");
      return run(*options);
    }
    for (const std::string_view name : foreign_options(options->codec_id())) {
      refuse(name, " is not an option of --codec " + options->codec);
    }
    if (options->add_consumer) {
      for (const std::string_view name : kRdEncoderOptions) {
        refuse(name, " is the encoder's, which --add-consumer keeps");
      }
    }
    run(*options);
  });
}

}  // namespace scd
