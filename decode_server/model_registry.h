// The models that requests can name at present.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "decode_server/served_model.h"

namespace scd {

// Thread-safe.
class ModelRegistry {
 public:
  // At least one; the first is what requests get that name none, for as long as it is served.
  explicit ModelRegistry(std::vector<std::shared_ptr<ServedModel>> models);

  // NOT_FOUND names those there are.
  Result<std::shared_ptr<ServedModel>> find(const std::string& name) const;
  std::vector<std::shared_ptr<ServedModel>> list() const;  // in the order in which they were loaded
  const std::string& default_name() const { return default_name_; }

  static constexpr size_t kMostModels = 1024;
  // ALREADY_EXISTS where the name is taken, unless it is to be replaced: requests under way keep what they began with.
  // RESOURCE_EXHAUSTED where there are so many.
  Result<Done> add(std::shared_ptr<ServedModel> model, bool replace);
  // New requests find it no longer. NOT_FOUND as find().
  Result<Done> remove(const std::string& name);

 private:
  Failure unknown(const std::string& name) const;  // under mutex_

  const std::string default_name_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<ServedModel>> models_;  // shared as ServedModel says
};

}  // namespace scd
