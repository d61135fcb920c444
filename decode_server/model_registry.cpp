#include "decode_server/model_registry.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace scd {
namespace {

auto named(auto& models, const std::string& name) {
  return std::ranges::find(models, name, [](const auto& model) -> const std::string& { return model->name(); });
}

std::string first_name(const std::vector<std::shared_ptr<ServedModel>>& models) {
  SCD_CHECK(!models.empty(), "a server begins with a model");
  return models.front()->name();
}

}  // namespace

ModelRegistry::ModelRegistry(std::vector<std::shared_ptr<ServedModel>> models)
    : default_name_(first_name(models)), models_(std::move(models)) {}

Failure ModelRegistry::unknown(const std::string& name) const {
  std::string known;
  for (const auto& model : models_) known += (known.empty() ? "'" : ", '") + model->name() + "'";
  return {ErrorCode::kNotFound,
          "model: '" + name + "' is not served here; this server has " + (known.empty() ? "none at present" : known)};
}

Result<std::shared_ptr<ServedModel>> ModelRegistry::find(const std::string& name) const {
  std::scoped_lock lock(mutex_);
  const std::string& wanted = name.empty() ? default_name_ : name;
  const auto found = named(models_, wanted);
  if (found == models_.end()) return unknown(wanted);
  return *found;
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::list() const {
  std::scoped_lock lock(mutex_);
  return models_;
}

Result<Done> ModelRegistry::add(std::shared_ptr<ServedModel> model, bool replace) {
  std::shared_ptr<ServedModel> replaced;  // freed without the lock
  std::scoped_lock lock(mutex_);
  const auto found = named(models_, model->name());
  if (found == models_.end()) {
    if (models_.size() >= kMostModels) {
      return Failure{ErrorCode::kResourceExhausted,
                     std::to_string(kMostModels) + " models are served; unload one first"};
    }
    models_.push_back(std::move(model));
    return Done{};
  }
  if (!replace) {
    return Failure{ErrorCode::kAlreadyExists,
                   "name: '" + model->name() + "' is served already; unload it first, or load in place"};
  }
  replaced = std::exchange(*found, std::move(model));
  return Done{};
}

Result<Done> ModelRegistry::remove(const std::string& name) {
  std::shared_ptr<ServedModel> removed;
  std::scoped_lock lock(mutex_);
  const auto found = named(models_, name);
  if (found == models_.end()) return unknown(name);
  removed = std::move(*found);
  models_.erase(found);
  return Done{};
}

}  // namespace scd
