#include "common/tokenizer/post_processor.h"

#include <algorithm>
#include <string>

namespace scd {
namespace {

constexpr int kMaxDepth = 8;

std::vector<TokenId> special_ids(const JsonField& item, const JsonField& tokens, size_t vocab_size) {
  std::vector<TokenId> ids;
  const std::string& name = item.at("id").string();
  tokens.at(name).at("ids").for_each([&](const JsonField& id) {
    ids.push_back(static_cast<TokenId>(id.integer(0, static_cast<int64_t>(vocab_size) - 1)));
  });
  return ids;
}

// The template wraps what earlier processors made.
void apply_template(const JsonField& field, size_t vocab_size, AffixIds& affixes) {
  field.allow_only({"type", "single", "pair", "special_tokens"});
  const JsonField single = field.at("single");
  AffixIds own;
  bool text_seen = false;
  single.for_each([&](const JsonField& item) {
    item.allow_only({"SpecialToken", "Sequence"});
    if (const auto special = item.find("SpecialToken")) {
      const std::vector<TokenId> ids = special_ids(*special, field.at("special_tokens"), vocab_size);
      std::vector<TokenId>& side = text_seen ? own.behind : own.before;
      side.insert(side.end(), ids.begin(), ids.end());
      return;
    }
    const JsonField sequence = item.at("Sequence").at("id");
    if (sequence.string() != "A" || text_seen) sequence.fail("must be 'A', once in the template of a single text");
    text_seen = true;
  });
  if (!text_seen) single.fail("must contain the sequence 'A'");
  affixes.before.insert(affixes.before.begin(), own.before.begin(), own.before.end());
  affixes.behind.insert(affixes.behind.end(), own.behind.begin(), own.behind.end());
}

void apply(const JsonField& field, size_t vocab_size, int depth, AffixIds& affixes) {
  const std::string& type = field.at("type").string();
  if (type == "ByteLevel") {
    field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else if (type == "TemplateProcessing") {
    apply_template(field, vocab_size, affixes);
  } else if (type == "Sequence") {
    field.allow_only({"type", "processors"});
    if (depth == kMaxDepth) field.refuse("a Sequence this deep");
    field.at("processors").for_each([&](const JsonField& step) { apply(step, vocab_size, depth + 1, affixes); });
  } else {
    field.refuse("post-processor '" + type + "'");
  }
}

}  // namespace

AffixIds read_post_processor(const JsonField& field, size_t vocab_size) {
  AffixIds affixes;
  apply(field, vocab_size, 0, affixes);
  return affixes;
}

}  // namespace scd
