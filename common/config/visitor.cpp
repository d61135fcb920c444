#include "common/config/visitor.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace scd {
namespace {

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string show(double value) {
  std::array<char, 64> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc{} ? std::string(digits.data(), end) : std::string("nan");
}

std::string show_range(const std::string& kind, const std::string& lowest, const std::string& highest) {
  return kind + " from " + lowest + " to " + highest;
}

std::string list_of(const std::vector<std::string_view>& labels) {
  std::string text;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (i > 0) text += i + 1 == labels.size() ? " or " : ", ";
    text += labels[i];
  }
  return text;
}

// The setter of a key that holds one value.
std::function<bool(const std::vector<std::string>&)> single(std::function<bool(const std::string&)> set) {
  return [set = std::move(set)](const std::vector<std::string>& given) { return given.size() == 1 && set(given[0]); };
}

}  // namespace

void ConfigVisitor::flag(std::string_view key, bool& value, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = "true or false",
         .get = [&value] { return std::vector<std::string>{value ? "true" : "false"}; },
         .set = single([&value](const std::string& text) {
           if (text != "true" && text != "false") return false;
           value = text == "true";
           return true;
         })});
}

void ConfigVisitor::text(std::string_view key, std::string& value, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = "text",
         .is_text = true,
         .get = [&value] { return std::vector<std::string>{value}; },
         .set = single([&value](const std::string& text) {
           value = text;
           return true;
         })});
}

void ConfigVisitor::texts(std::string_view key, std::vector<std::string>& value, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = "a list of texts, as [a, b]",
         .is_list = true,
         .is_text = true,
         .get = [&value] { return value; },
         .set =
             [&value](const std::vector<std::string>& given) {
               value = given;
               return true;
             }});
}

void ConfigVisitor::path(std::string_view key, std::filesystem::path& value, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = "a path",
         .is_text = true,
         .get = [&value] { return std::vector<std::string>{value.string()}; },
         .set = single([&value](const std::string& text) {
           value = text;
           return true;
         })});
}

void ConfigVisitor::milliseconds(std::string_view key, std::chrono::milliseconds& value, Range<int64_t> range,
                                 std::string_view help) {
  integer(
      key, range, [&value] { return static_cast<int64_t>(value.count()); },
      [&value](int64_t given) { value = std::chrono::milliseconds(given); }, help);
}

void ConfigVisitor::number(std::string_view key, double& value, Range<double> range, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = show_range("a number", show(range.lowest), show(range.highest)),
         .get = [&value] { return std::vector<std::string>{show(value)}; },
         .set = single([&value, range](const std::string& text) {
           const std::optional<double> given = parse_number<double>(text);
           if (!given || !std::isfinite(*given) || *given < range.lowest || *given > range.highest) return false;
           value = *given;
           return true;
         })});
}

void ConfigVisitor::integer(std::string_view key, Range<int64_t> range, std::function<int64_t()> get,
                            std::function<void(int64_t)> set, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = show_range("a whole number", std::to_string(range.lowest), std::to_string(range.highest)),
         .get = [get = std::move(get)] { return std::vector<std::string>{std::to_string(get())}; },
         .set = single([set = std::move(set), range](const std::string& text) {
           const std::optional<int64_t> given = parse_number<int64_t>(text);
           if (!given || *given < range.lowest || *given > range.highest) return false;
           set(*given);
           return true;
         })});
}

void ConfigVisitor::choice_index(std::string_view key, std::vector<std::string_view> labels,
                                 std::function<size_t()> get, std::function<void(size_t)> set, std::string_view help) {
  visit({.key = key,
         .help = help,
         .expected = list_of(labels),
         .get =
             [get = std::move(get), labels] {
               const size_t index = get();
               return std::vector<std::string>{index < labels.size() ? std::string(labels[index]) : std::string()};
             },
         .set = single([set = std::move(set), labels](const std::string& text) {
           for (size_t i = 0; i < labels.size(); ++i) {
             if (labels[i] != text) continue;
             set(i);
             return true;
           }
           return false;
         })});
}

void ConfigVisitor::section_of(std::string_view key, std::string_view help,
                               const std::function<void(ConfigVisitor&)>& body) {
  begin(key, help);
  body(*this);
  end();
}

}  // namespace scd
