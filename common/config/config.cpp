#include "common/config/config.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "common/base/error.h"
#include "common/config/document.h"
#include "common/config/nearest_key.h"

namespace scd {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); }

// Walks the description and the document together; a key of the document that no field claims is unknown.
class Loader : public ConfigVisitor {
 public:
  explicit Loader(ConfigNode& root) { levels_.push_back({&root, "", {}}); }

  void refuse_unknown() const { refuse_unknown(levels_.front()); }

 protected:
  void visit(const ConfigField& field) override {
    ConfigNode* node = claim(field.key);
    if (node == nullptr) return;
    const bool is_list = node->kind == ConfigNode::Kind::kList;
    const bool right_kind = field.is_list ? is_list && node->children.empty() : node->kind == ConfigNode::Kind::kScalar;
    const std::vector<std::string> given = is_list ? node->items : std::vector<std::string>{node->scalar};
    if (right_kind && field.set(given)) return;
    refuse(node->where + ": " + path_of(field.key) + ": " + shown(*node) + " is not " + field.expected);
  }

  void begin(std::string_view key, std::string_view) override {
    ConfigNode* node = claim(key);
    if (node != nullptr && node->kind != ConfigNode::Kind::kMapping) {
      if (node->kind != ConfigNode::Kind::kNothing) {
        refuse(node->where + ": " + path_of(key) + ": " + shown(*node) + " stands where nested keys belong");
      }
      node = nullptr;  // "section:" with all its keys commented out
    }
    levels_.push_back({node, path_of(key), {}});
  }

  void end() override {
    refuse_unknown(levels_.back());
    levels_.pop_back();
  }

  std::optional<size_t> begin_list(std::string_view key, std::string_view, size_t) override {
    ConfigNode* node = claim(key);
    if (node != nullptr && (node->kind != ConfigNode::Kind::kList || !node->items.empty())) {
      if (node->kind != ConfigNode::Kind::kNothing) {
        refuse(node->where + ": " + path_of(key) + ": " + shown(*node) + " stands where a list of mappings belongs");
      }
      node = nullptr;
    }
    levels_.push_back({node, path_of(key), {}});
    return node == nullptr ? std::nullopt : std::optional(node->children.size());
  }

  void begin_element(size_t index) override {
    const Level& list = levels_.back();
    ConfigNode* node = list.node == nullptr ? nullptr : &list.node->children[index].second;
    levels_.push_back({node, list.path + "[" + std::to_string(index) + "]", {}});
  }

  void end_list() override { levels_.pop_back(); }

 private:
  struct Level {
    ConfigNode* node;  // null where the document does not have the section
    std::string path;
    std::vector<std::string> known;
  };

  ConfigNode* claim(std::string_view key) {
    Level& level = levels_.back();
    level.known.emplace_back(key);
    if (level.node == nullptr) return nullptr;
    return level.node->find(std::string(key));
  }

  std::string path_of(std::string_view key) const {
    const std::string& path = levels_.back().path;
    return path.empty() ? std::string(key) : path + "." + std::string(key);
  }

  static std::string shown(const ConfigNode& node) {
    switch (node.kind) {
      case ConfigNode::Kind::kNothing: return "nothing";
      case ConfigNode::Kind::kScalar: return "'" + node.scalar.substr(0, 80) + "'";
      case ConfigNode::Kind::kList: return "a list";
      case ConfigNode::Kind::kMapping: return "a mapping";
    }
    return {};
  }

  static void refuse_unknown(const Level& level) {
    if (level.node == nullptr) return;
    for (const auto& [key, child] : level.node->children) {
      if (std::find(level.known.begin(), level.known.end(), key) != level.known.end()) continue;
      const std::string in = level.path.empty() ? "" : " in '" + level.path + "'";
      const std::string nearest = nearest_key(key, level.known);
      std::string known;
      for (const std::string& name : level.known) known += (known.empty() ? "" : ", ") + name;
      refuse(child.where + ": unknown key '" + key + "'" + in +
             (nearest.empty() ? "; known keys: " + known : "; did you mean '" + nearest + "'?"));
    }
  }

  std::vector<Level> levels_;
};

class Dumper : public ConfigVisitor {
 public:
  std::string text() const { return text_; }

 protected:
  void visit(const ConfigField& field) override {
    // What elements of a list mean is said once.
    if (!later_element_) {
      comment(std::string(field.help) + (field.is_text || field.is_list ? "" : " [" + field.expected + "]"));
    }
    text_ += key_indent() + std::string(field.key) + ": " + value(field) + "\n";
    fresh_ = false;
  }

  void begin(std::string_view key, std::string_view help) override {
    if (!fresh_) text_ += "\n";
    comment(std::string(help));
    text_ += key_indent() + std::string(key) + ":\n";
    ++depth_;
    fresh_ = true;
  }

  void end() override {
    --depth_;
    fresh_ = false;
  }

  std::optional<size_t> begin_list(std::string_view key, std::string_view help, size_t count) override {
    comment(std::string(help));
    text_ += key_indent() + std::string(key) + (count == 0 ? ": []\n" : ":\n");
    ++depth_;
    return std::nullopt;
  }

  void begin_element(size_t index) override {
    ++depth_;
    opens_element_ = true;
    later_element_ = index > 0;
  }

  void end_list() override {
    --depth_;
    later_element_ = false;
    fresh_ = false;
  }

 private:
  static constexpr size_t kWidth = 118;

  std::string indent() const { return std::string(2 * depth_, ' '); }

  // Before a key: the first of an element stands behind the dash.
  std::string key_indent() {
    std::string before = indent();
    if (std::exchange(opens_element_, false)) before.replace(before.size() - 2, 2, "- ");
    return before;
  }

  void comment(const std::string& help) {
    std::stringstream words(help);
    std::string line;
    for (std::string word; words >> word;) {
      if (!line.empty() && indent().size() + line.size() + word.size() + 3 > kWidth) {
        text_ += indent() + "#" + line + "\n";
        line.clear();
      }
      line += " " + word;
    }
    if (!line.empty()) text_ += indent() + "#" + line + "\n";
  }

  static std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') result += '\\';
      if (c == '\n') {
        result += "\\n";
      } else {
        result += c;
      }
    }
    return result + "\"";
  }

  static std::string value(const ConfigField& field) {
    const std::vector<std::string> values = field.get();
    if (!field.is_list) return field.is_text ? quoted(values.front()) : values.front();
    std::string list = "[";
    for (size_t i = 0; i < values.size(); ++i) list += (i == 0 ? "" : ", ") + quoted(values[i]);
    return list + "]";
  }

  std::string text_;
  size_t depth_ = 0;
  bool fresh_ = true;           // nothing written yet at this level
  bool opens_element_ = false;  // the next key is the first of an element of a list
  bool later_element_ = false;  // not the first one
};

}  // namespace

void load_described(const DescribeConfig& describe_all, const ConfigSource& source) {
  ConfigNode root;
  if (!source.file.empty()) root = read_config_file(source.file);
  for (const std::string& assignment : source.overrides) apply_override(root, assignment);
  if (root.kind == ConfigNode::Kind::kNothing) return;
  if (root.kind != ConfigNode::Kind::kMapping) refuse(root.where + ": a configuration is a mapping of keys to values");
  Loader loader(root);
  describe_all(loader);
  loader.refuse_unknown();
}

std::string dump_described(const DescribeConfig& describe_all) {
  Dumper dumper;
  describe_all(dumper);
  return dumper.text();
}

}  // namespace scd
