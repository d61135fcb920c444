// Tiny random models and text of random ids, for tests that calibrate.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "common/model/fingerprint.h"
#include "common/model/make_model.h"
#include "common/model/model.h"
#include "tools/scd/calibration.h"

namespace scd::testing {

inline std::vector<TokenWindow> random_windows(int count, size_t length, uint32_t seed, uint32_t ids = 250) {
  std::mt19937 random(seed);
  std::vector<TokenWindow> windows(static_cast<size_t>(count), TokenWindow(length));
  for (TokenWindow& window : windows) {
    for (TokenId& id : window) id = static_cast<TokenId>(random() % ids);
  }
  return windows;
}

// Models by name in a folder that goes with it.
class CalibrationModels {
 public:
  explicit CalibrationModels(const std::string& name, kernels::Device device = kernels::Device::kCpu)
      : device_(device),
        root_(std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()))),
        text{random_windows(20, 120, 5),
             {random_windows(4, 120, 6)},
             {random_windows(4, 120, 7)},
             {std::string(64, '7')}} {}
  ~CalibrationModels() {
    models_.clear();
    std::filesystem::remove_all(root_);
  }
  CalibrationModels(const CalibrationModels&) = delete;
  CalibrationModels& operator=(const CalibrationModels&) = delete;

  std::filesystem::path path(const std::string& name) const { return root_ / name; }
  std::filesystem::path make(const std::string& name, const MakeModelOptions& options) const {
    make_model(options, path(name));
    return path(name);
  }
  const Model& model(const std::string& name) {
    auto& model = models_[name];
    if (!model) {
      model = std::make_unique<Model>(
          Model::load({.directory = path(name), .adapter = {}, .device = device_, .progress = {}}));
    }
    return *model;
  }
  ModelIdentity identity(const std::string& name) const {
    const ModelFingerprint fingerprint = fingerprint_model(path(name), std::nullopt);
    return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
  }
  CalibrationInput input(const std::string& producer, const std::string& consumer) {
    return {model(producer), model(consumer), identity(producer), identity(consumer), text};
  }

 private:
  kernels::Device device_;
  std::filesystem::path root_;
  std::map<std::string, std::unique_ptr<Model>> models_;

 public:
  CalibrationText text;
};

}  // namespace scd::testing
