#include "common/config/document.h"

#include <yaml-cpp/yaml.h>

#include <fstream>
#include <sstream>

#include "common/base/error.h"

namespace scd {
namespace {

constexpr std::uintmax_t kMaxFileBytes = 1 << 20;
constexpr int kMaxDepth = 16;
constexpr size_t kMaxValues = 10000;

// Turns yaml-cpp's nodes into ours; aliases are expanded, which is why values are counted.
class Reader {
 public:
  explicit Reader(std::string origin, bool with_lines) : origin_(std::move(origin)), with_lines_(with_lines) {}

  ConfigNode read(const YAML::Node& from, int depth = 0) {
    ConfigNode node;
    node.where = place(from);
    if (depth > kMaxDepth) fail(node, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    if (++values_ > kMaxValues) fail(node, "more than " + std::to_string(kMaxValues) + " values");
    switch (from.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: break;
      case YAML::NodeType::Scalar:
        node.kind = ConfigNode::Kind::kScalar;
        node.scalar = from.Scalar();
        break;
      case YAML::NodeType::Sequence: read_list(from, node, depth); break;
      case YAML::NodeType::Map: read_mapping(from, node, depth); break;
    }
    return node;
  }

 private:
  void read_list(const YAML::Node& from, ConfigNode& node, int depth) {
    node.kind = ConfigNode::Kind::kList;
    for (const YAML::Node& item : from) {
      if (item.IsMap() && node.items.empty()) {
        node.children.emplace_back("", read(item, depth + 1));
        continue;
      }
      if (!item.IsScalar() || !node.children.empty()) fail(node, "a list holds plain values only, or mappings only");
      if (++values_ > kMaxValues) fail(node, "more than " + std::to_string(kMaxValues) + " values");
      node.items.push_back(item.Scalar());
    }
  }

  void read_mapping(const YAML::Node& from, ConfigNode& node, int depth) {
    node.kind = ConfigNode::Kind::kMapping;
    for (const auto& entry : from) {
      if (!entry.first.IsScalar()) fail(node, "a key is plain text");
      const std::string& key = entry.first.Scalar();
      ConfigNode child = read(entry.second, depth + 1);
      child.where = place(entry.first);
      if (node.find(key) != nullptr) fail(child, "key '" + key + "' appears twice");
      node.children.emplace_back(key, std::move(child));
    }
  }

  std::string place(const YAML::Node& node) const {
    return with_lines_ ? origin_ + ":" + std::to_string(node.Mark().line + 1) : origin_;
  }

  [[noreturn]] static void fail(const ConfigNode& node, const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, node.where + ": " + what);
  }

  const std::string origin_;
  const bool with_lines_;
  size_t values_ = 0;
};

}  // namespace

ConfigNode* ConfigNode::find(const std::string& key) {
  for (auto& [name, child] : children) {
    if (name == key) return &child;
  }
  return nullptr;
}

ConfigNode read_config_file(const std::filesystem::path& file) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  if (error) throw Error(ErrorCode::kNotFound, file.string() + ": " + error.message());
  if (bytes > kMaxFileBytes) {
    throw Error(ErrorCode::kInvalidArgument, file.string() + ": " + std::to_string(bytes) +
                                                 " bytes; a configuration has at most " +
                                                 std::to_string(kMaxFileBytes));
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  std::stringstream text;
  text << stream.rdbuf();
  try {
    return Reader(file.string(), true).read(YAML::Load(text.str()));
  } catch (const YAML::Exception& failure) {
    throw Error(ErrorCode::kInvalidArgument,
                file.string() + ":" + std::to_string(failure.mark.line + 1) + ": not YAML: " + failure.msg);
  }
}

void apply_override(ConfigNode& root, const std::string& assignment) {
  const std::string where = "--set " + assignment;
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(ErrorCode::kInvalidArgument, where + ": write it as path=value, for example log.level=debug");
  }
  ConfigNode value;
  try {
    value = Reader(where, false).read(YAML::Load(assignment.substr(equals + 1)));
  } catch (const YAML::Exception& failure) {
    throw Error(ErrorCode::kInvalidArgument, where + ": the value is not YAML: " + failure.msg);
  }
  if (value.kind == ConfigNode::Kind::kNothing) value.kind = ConfigNode::Kind::kScalar;  // "path=": empty text
  ConfigNode* node = &root;
  std::stringstream path(assignment.substr(0, equals));
  for (std::string key; std::getline(path, key, '.');) {
    if (node->kind != ConfigNode::Kind::kMapping) *node = {.kind = ConfigNode::Kind::kMapping, .where = where};
    ConfigNode* child = node->find(key);
    if (child == nullptr) child = &node->children.emplace_back(key, ConfigNode{.where = where}).second;
    node = child;
  }
  *node = std::move(value);
}

}  // namespace scd
