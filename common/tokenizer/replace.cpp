#include "common/tokenizer/replace.h"

#include <optional>
#include <vector>

namespace scd {

Pattern read_pattern(const JsonField& field) {
  field.allow_only({"String", "Regex"});
  if (const auto literal = field.find("String")) {
    if (literal->string().empty()) literal->fail("must not be empty");
    return Pattern::literal(literal->string());
  }
  const JsonField expression = field.at("Regex");
  std::optional<Pattern> pattern;
  expression.guard([&] { pattern.emplace(Pattern::regex(expression.string())); });
  return std::move(*pattern);
}

Replace::Replace(const JsonField& field)
    : pattern_(read_pattern(field.at("pattern"))), content_(field.at("content").string()) {
  field.allow_only({"type", "pattern", "content"});
}

void Replace::apply(std::string& text) const {
  std::vector<Stretch> stretches;
  pattern_.find(text, stretches);
  std::string out;
  out.reserve(text.size());
  for (const Stretch& stretch : stretches) {
    if (stretch.is_match) {
      out.append(content_);
    } else {
      out.append(text, stretch.begin, stretch.end - stretch.begin);
    }
  }
  text = std::move(out);
}

}  // namespace scd
