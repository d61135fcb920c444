// How a struct of settings tells its keys. Each struct has one `describe(ConfigVisitor&, Struct&)` beside it, and that
// one function loads it, dumps it, checks its ranges and knows its keys:
//
//   void describe(ConfigVisitor& at, CacheOptions& cache) {
//     at.number("memory_mib", cache.memory_mib, {1, 1 << 20}, "Memory for stored codes, MiB.");
//     at.choice("policy", cache.policy, {{"lru", Policy::kLru}, {"none", Policy::kNone}}, "What goes first.");
//     at.section("limits", cache.limits, "What one request may ask for.");
//   }
//
// Keys are snake_case and end in their unit (_ms, _bytes, _mib, _gbps) where the value has one.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scd {

template <class T>
struct Range {
  T lowest;
  T highest;
};

// One key as visitors see it: its value as text, and a way to change it.
struct ConfigField {
  std::string_view key;
  std::string_view help;
  std::string expected;  // "a whole number from 1 to 64", "raw or scd"
  bool is_list = false;
  bool is_text = false;  // quoted in YAML
  std::function<std::vector<std::string>()> get;
  // False when the text does not say a value of this kind and range; the value is unchanged then.
  std::function<bool(const std::vector<std::string>&)> set;
};

class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;

  void flag(std::string_view key, bool& value, std::string_view help);
  void text(std::string_view key, std::string& value, std::string_view help);
  void texts(std::string_view key, std::vector<std::string>& value, std::string_view help);
  // An empty path means "none". Relative paths are relative to the working directory.
  void path(std::string_view key, std::filesystem::path& value, std::string_view help);
  void milliseconds(std::string_view key, std::chrono::milliseconds& value, Range<int64_t> range,
                    std::string_view help);
  void number(std::string_view key, double& value, Range<double> range, std::string_view help);

  template <std::integral T>
  void number(std::string_view key, T& value, Range<std::type_identity_t<T>> range, std::string_view help) {
    integer(
        key, {static_cast<int64_t>(range.lowest), static_cast<int64_t>(range.highest)},
        [&value] { return static_cast<int64_t>(value); }, [&value](int64_t given) { value = static_cast<T>(given); },
        help);
  }

  template <class E>
  void choice(std::string_view key, E& value, std::initializer_list<std::pair<std::string_view, E>> names,
              std::string_view help) {
    std::vector<std::string_view> labels;
    std::vector<E> values;
    for (const auto& [label, meaning] : names) {
      labels.push_back(label);
      values.push_back(meaning);
    }
    choice_index(
        key, labels,
        [&value, values] {
          size_t index = 0;
          while (index < values.size() && values[index] != value) ++index;
          return index;
        },
        [&value, values](size_t index) { value = values[index]; }, help);
  }

  // A nested mapping, described by the describe() of its type.
  template <class Section>
  void section(std::string_view key, Section& value, std::string_view help) {
    section_of(key, help, [&value](ConfigVisitor& at) { describe(at, value); });
  }
  // A list of mappings, each described by the describe() of its type; a document that has the key gives all of them.
  template <class Section>
  void sections(std::string_view key, std::vector<Section>& value, std::string_view help) {
    const std::optional<size_t> given = begin_list(key, help, value.size());
    if (given) value.assign(*given, Section{});
    for (size_t i = 0; i < value.size(); ++i) {
      begin_element(i);
      describe(*this, value[i]);
      end();
    }
    end_list();
  }
  // A nested mapping described in place: for a key that shows part of a struct.
  void section_of(std::string_view key, std::string_view help, const std::function<void(ConfigVisitor&)>& body);

 protected:
  virtual void visit(const ConfigField& field) = 0;
  virtual void begin(std::string_view key, std::string_view help) = 0;
  virtual void end() = 0;
  // A list that has `count` elements: how many it has from now on, where they are replaced.
  virtual std::optional<size_t> begin_list(std::string_view key, std::string_view help, size_t count) = 0;
  virtual void begin_element(size_t index) = 0;  // until end()
  virtual void end_list() = 0;

 private:
  void integer(std::string_view key, Range<int64_t> range, std::function<int64_t()> get,
               std::function<void(int64_t)> set, std::string_view help);
  void choice_index(std::string_view key, std::vector<std::string_view> labels, std::function<size_t()> get,
                    std::function<void(size_t)> set, std::string_view help);
};

}  // namespace scd
