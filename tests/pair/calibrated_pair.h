// An artifact that calibration made of a pair's own models, on random ids, of which greedy_request() is made as well.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "artifact_models.h"
#include "tools/scd/rd_calibration.h"

namespace scd::testing {

// A consumer: a checkpoint, and an adapter merged into it.
struct CalibratedConsumer {
  std::filesystem::path model;
  std::optional<std::filesystem::path> adapter = std::nullopt;
};

// Fits one encoder for the producer with all consumers, as `scd calibrate` does.
inline void calibrate_pair(const std::filesystem::path& producer, const std::vector<CalibratedConsumer>& consumers,
                           const RdPlanOptions& plan, const std::filesystem::path& directory) {
  std::mt19937 random(17);
  CalibrationText text;
  for (auto* windows : {&text.fit, &text.validation.windows, &text.held_out.windows}) {
    windows->assign(windows == &text.fit ? 24 : 2, TokenWindow(160));
    for (TokenWindow& window : *windows) {
      for (TokenId& id : window) id = static_cast<TokenId>(3 + random() % 317);
    }
  }
  text.file_sha256 = {std::string(64, '7')};
  const Model a = Model::load({.directory = producer, .adapter = {}, .progress = {}});
  std::vector<std::unique_ptr<Model>> models;
  std::vector<CalibrationInput> inputs;
  for (const CalibratedConsumer& consumer : consumers) {
    models.push_back(std::make_unique<Model>(
        Model::load({.directory = consumer.model, .adapter = consumer.adapter, .progress = {}})));
    inputs.push_back(
        {a, *models.back(), model_identity(producer), model_identity(consumer.model, consumer.adapter), text});
  }
  RdCalibrationOptions options;
  options.plans = {make_plan(plan, models.front()->config().layers)};
  options.ratios = {6, 24};
  options.experiment.suffix = 24;
  RdCalibrationResult result = calibrate_rd(inputs, options);
  write_artifact(directory, result.encoder, result.decoders);
}

}  // namespace scd::testing
