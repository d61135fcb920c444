// Makes the models of a configuration, or one more while the server runs: reads adapter and artifact and checks all of
// them before anybody can name the model.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "decode_server/served_model.h"

namespace scd {

class ModelLoader {
 public:
  struct Args {
    const DecodeConfig& config;
    const Model& model;  // what was loaded from model.directory, with model.adapter merged where there is one
    const Tokenizer& tokenizer;
    PrefixCache& prefixes;
    int32_t kv_pages = 0;
  };
  explicit ModelLoader(const Args& args) : args_(args) {}

  // Those of `models:`; the one that was loaded where there are none. Throws Error as load().
  std::vector<std::shared_ptr<ServedModel>> load_configured() const;
  // Throws Error: names the model, and which field is wrong. Any thread.
  std::shared_ptr<ServedModel> load(const ServedModelOptions& options) const;

 private:
  // `adapter`: in the weights, or beside them.
  std::shared_ptr<ServedModel> make(const ServedModelOptions& options, bool adapter_unmerged) const;

  const Args args_;
};

// The name clients use where the configuration gives none: the directory's.
std::string name_of(const ModelOptions& options);

}  // namespace scd
