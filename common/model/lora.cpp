#include "common/model/lora.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <regex>
#include <utility>

#include "common/base/error.h"
#include "common/base/file_status.h"
#include "common/model/json_file.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kPrefix = "base_model.model.";

// Fields that only matter while training, name things, or are read below.
constexpr std::array kHarmless{"alpha_pattern",
                               "auto_mapping",
                               "base_model_name_or_path",
                               "corda_config",
                               "ensure_weight_tying",
                               "eva_config",
                               "exclude_modules",
                               "fan_in_fan_out",
                               "inference_mode",
                               "init_lora_weights",
                               "layers_pattern",
                               "layers_to_transform",
                               "lora_alpha",
                               "lora_dropout",
                               "megatron_core",
                               "peft_type",
                               "peft_version",
                               "qalora_group_size",
                               "r",
                               "rank_pattern",
                               "revision",
                               "runtime_config",
                               "target_modules",
                               "task_type",
                               "use_rslora",
                               "lora_ga_config"};

bool says_nothing(const Json& value) {
  if (value.is_null() || value == false) return true;
  return (value.is_array() || value.is_object()) && value.empty();
}

// Every switch PEFT has or will have beyond plain LoRA changes the result: an unknown one that is on is refused.
void refuse_unsupported(const JsonFile& file) {
  if (file.text("peft_type", "LORA") != "LORA") file.refuse("peft_type", "expected LORA");
  if (file.text("bias", "none") != "none") file.refuse("bias", "trained biases are not supported; expected none");
  if (file.boolean("use_dora", false)) file.refuse("use_dora", "DoRA is not supported; expected false");
  for (const auto& [field, value] : file.root().items()) {
    if (field == "bias" || std::ranges::find(kHarmless, field) != kHarmless.end()) continue;
    if (!says_nothing(value)) file.refuse(field, "this feature is not supported; expected it off");
  }
  // These change the base's weights when PEFT loads the adapter.
  const auto& init = file.has("init_lora_weights") ? file.root()["init_lora_weights"] : Json(true);
  if (!init.is_boolean() && init != "gaussian" && init != "eva" && init != "orthogonal") {
    file.refuse("init_lora_weights", "expected true, false, gaussian, orthogonal or eva");
  }
}

// PEFT's rule: a pattern matches a module's whole name or the part after some dot; the first in file order counts.
double from_pattern(const JsonFile& file, const std::string& field, const std::string& module, double otherwise) {
  if (!file.has(field)) return otherwise;
  if (!file.root()[field].is_object()) file.refuse(field, "expected an object of patterns and numbers");
  for (const auto& [pattern, value] : file.root()[field].items()) {
    try {
      if (!std::regex_match(module, std::regex("(.*\\.)?(" + pattern + ")"))) continue;
    } catch (const std::regex_error&) {
      file.refuse(field, "cannot read `" + pattern + "` as a regular expression");
    }
    if (!value.is_number()) file.refuse(field, "expected a number for `" + pattern + "`");
    return value.get<double>();
  }
  return otherwise;
}

// Whether target_modules names the module; true for anything where it is absent or "all-linear".
bool is_target(const JsonFile& file, const std::string& module) {
  if (!file.has("target_modules")) return true;
  const auto& targets = file.root()["target_modules"];
  if (targets.is_string()) {
    const auto pattern = targets.get<std::string>();
    if (pattern == "all-linear") return true;
    try {
      return std::regex_match(module, std::regex(pattern));
    } catch (const std::regex_error&) {
      file.refuse("target_modules", "cannot read it as a regular expression");
    }
  }
  if (!targets.is_array()) file.refuse("target_modules", "expected a list of names or a regular expression");
  return std::ranges::any_of(targets, [&](const auto& target) {
    if (!target.is_string()) file.refuse("target_modules", "expected strings");
    const auto name = target.template get<std::string>();
    return module == name || module.ends_with("." + name);
  });
}

std::filesystem::path weights_file(const std::filesystem::path& directory) {
  if (!is_folder(directory)) {
    throw Error(ErrorCode::kNotFound, directory.string() + ": no such folder; expected a PEFT adapter");
  }
  return directory / kAdapterWeightsFile;
}

// "base_model.model.<module>.lora_A.weight" -> <module>, side 'A' or 'B'. Anything else is refused by name.
std::pair<std::string, char> parse_name(const std::filesystem::path& path, const std::string& tensor) {
  for (const char side : {'A', 'B'}) {
    const std::string suffix = std::string(".lora_") + side + ".weight";
    if (tensor.starts_with(kPrefix) && tensor.ends_with(suffix)) {
      return {tensor.substr(kPrefix.size(), tensor.size() - kPrefix.size() - suffix.size()), side};
    }
  }
  std::string why = "expected base_model.model.<module>.lora_A.weight or lora_B.weight";
  if (tensor.find("lora_embedding_") != std::string::npos) why = "LoRA of embeddings is not supported";
  if (tensor.find("lora_magnitude_vector") != std::string::npos) why = "DoRA is not supported";
  if (tensor.find("modules_to_save") != std::string::npos) why = "modules_to_save is not supported";
  if (tensor.ends_with(".bias")) why = "biases are not supported";
  throw Error(ErrorCode::kInvalidArgument, path.string() + ": tensor `" + tensor + "`: " + why);
}

std::vector<float> in_fp32(kernels::ConstMatrix stored) {
  const auto count = static_cast<size_t>(stored.rows * stored.columns);
  const auto* begin = static_cast<const std::byte*>(stored.data);
  std::vector<std::byte> aligned(begin, begin + count * kernels::size_of(stored.dtype));
  stored.data = aligned.data();
  std::vector<float> values(count);
  kernels::convert(stored, kernels::matrix(values.data(), stored.rows, stored.columns));
  return values;
}

}  // namespace

LoraAdapter::LoraAdapter(const std::filesystem::path& directory)
    : checkpoint_(Checkpoint::of_file(weights_file(directory))), config_(directory / "adapter_config.json") {
  refuse_unsupported(config_);
  // fan_in_fan_out says that a base layer stores [in, out]; the linear layers of these families store [out, in], and
  // PEFT takes the flag back for them. Either way the term to add in our [out, in] layout is B A.
  config_.boolean("fan_in_fan_out", false);
  const auto& path = checkpoint_.files()[0].path();
  for (const auto& [tensor, entry] : checkpoint_.tensors()) {
    const auto [module, side] = parse_name(path, tensor);
    if (!is_target(config_, module)) {
      throw Error(ErrorCode::kInvalidArgument,
                  path.string() + ": tensor `" + tensor + "`: its module is not among target_modules");
    }
    (side == 'A' ? factors_[module].a : factors_[module].b) = tensor;
  }
  const int64_t rank = config_.integer("r");
  const double alpha = config_.number("lora_alpha", 8.0);
  const bool rslora = config_.boolean("use_rslora", false);
  for (auto& [module, factors] : factors_) {
    if (factors.a.empty() || factors.b.empty()) {
      const std::string missing =
          std::string(kPrefix) + module + (factors.a.empty() ? ".lora_A" : ".lora_B") + ".weight";
      throw Error(ErrorCode::kNotFound, path.string() + ": tensor `" + missing + "` is missing");
    }
    const double own_rank = from_pattern(config_, "rank_pattern", module, static_cast<double>(rank));
    if (!(own_rank >= 1) || own_rank > 65536 || own_rank != std::floor(own_rank)) {
      config_.refuse(config_.has("rank_pattern") ? "rank_pattern" : "r", "expected ranks of 1 to 65536");
    }
    factors.rank = static_cast<int64_t>(own_rank);
    const double own_alpha = from_pattern(config_, "alpha_pattern", module, alpha);
    factors.scale = static_cast<float>(own_alpha / (rslora ? std::sqrt(own_rank) : own_rank));
  }
}

std::optional<LoraFactors> LoraAdapter::factors(const std::string& module, int64_t out, int64_t in) const {
  const auto found = factors_.find(module);
  if (found == factors_.end()) return std::nullopt;
  const Factors& stored = found->second;
  return LoraFactors{.rank = stored.rank,
                     .scale = stored.scale,
                     .a = in_fp32(checkpoint_.matrix(stored.a, stored.rank, in)),
                     .b = in_fp32(checkpoint_.matrix(stored.b, out, stored.rank))};
}

bool LoraAdapter::merge(const std::string& module, kernels::Matrix weight) const {
  auto found = factors(module, weight.rows, weight.columns);
  if (!found) return false;
  for (float& value : found->b) value *= found->scale;
  kernels::gemm_f32({.a = kernels::matrix(std::as_const(found->b).data(), weight.rows, found->rank),
                     .b = kernels::matrix(std::as_const(found->a).data(), found->rank, weight.columns),
                     .c = weight,
                     .beta = 1.0f});
  return true;
}

void LoraAdapter::check_modules(const std::set<std::string>& linear_modules) const {
  const auto& path = checkpoint_.files()[0].path();
  for (const auto& [module, factors] : factors_) {
    if (!linear_modules.contains(module)) {
      throw Error(ErrorCode::kInvalidArgument,
                  path.string() + ": tensor `" + factors.a + "`: the model has no linear layer of this name");
    }
  }
  const bool subset = config_.has("layers_to_transform") || config_.has("exclude_modules");
  if (subset || !config_.has("target_modules") || !config_.root()["target_modules"].is_array()) return;
  for (const auto& module : linear_modules) {
    if (is_target(config_, module) && !factors_.contains(module)) {
      throw Error(ErrorCode::kNotFound, path.string() + ": tensor `" + std::string(kPrefix) + module +
                                            ".lora_A.weight` is missing, target_modules asks for it");
    }
  }
}

std::string LoraAdapter::settings() const {
  nlohmann::json settings = nlohmann::json::object();
  for (const auto& [module, factors] : factors_) settings[module] = {factors.rank, factors.scale};
  return settings.dump();
}

}  // namespace scd
