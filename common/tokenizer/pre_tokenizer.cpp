#include "common/tokenizer/pre_tokenizer.h"

#include <utility>

#include "common/tokenizer/byte_level.h"
#include "common/tokenizer/replace.h"
#include "common/tokenizer/split.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

constexpr int kMaxDepth = 8;
constexpr std::string_view kByteLevelWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void cut(PieceList& list, const Pattern& pattern, SplitBehavior behavior, bool invert) {
  std::vector<Piece> cut_pieces;
  cut_pieces.reserve(list.pieces.size());
  std::vector<Stretch> stretches;
  for (const Piece& piece : list.pieces) {
    stretches.clear();
    pattern.find(piece.text, stretches);
    if (invert) {
      for (Stretch& stretch : stretches) stretch.is_match = !stretch.is_match;
    }
    merge_stretches(behavior, stretches);
    for (const Stretch& stretch : stretches) {
      if (stretch.begin == stretch.end) continue;
      cut_pieces.push_back(
          {piece.text.substr(stretch.begin, stretch.end - stretch.begin), piece.at_start && stretch.begin == 0});
    }
  }
  list.pieces = std::move(cut_pieces);
}

void prepend(PieceList& list, Piece& piece, std::string_view prefix) {
  list.storage.push_back(std::string(prefix).append(piece.text));
  piece.text = list.storage.back();
}

class SplitStep final : public PreTokenizer {
 public:
  explicit SplitStep(const JsonField& field)
      : pattern_(read_pattern(field.at("pattern"))),
        behavior_(read_split_behavior(field.at("behavior"))),
        invert_(field.boolean_or("invert", false)) {
    field.allow_only({"type", "pattern", "behavior", "invert"});
  }
  void apply(PieceList& list) const override { cut(list, pattern_, behavior_, invert_); }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class DigitsStep final : public PreTokenizer {
 public:
  explicit DigitsStep(const JsonField& field)
      : digits_(Pattern::regex(field.boolean_or("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)")) {
    field.allow_only({"type", "individual_digits"});
  }
  void apply(PieceList& list) const override { cut(list, digits_, SplitBehavior::kIsolated, false); }

 private:
  Pattern digits_;
};

class ByteLevelStep final : public PreTokenizer {
 public:
  explicit ByteLevelStep(const JsonField& field)
      : add_prefix_space_(field.boolean_or("add_prefix_space", true)),
        use_regex_(field.boolean_or("use_regex", true)),
        words_(Pattern::regex(kByteLevelWords)) {
    field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }

  void apply(PieceList& list) const override {
    if (add_prefix_space_) {
      for (Piece& piece : list.pieces) {
        if (!piece.text.starts_with(' ')) prepend(list, piece, " ");
      }
    }
    if (use_regex_) cut(list, words_, SplitBehavior::kIsolated, false);
    size_t bytes = 0;
    for (const Piece& piece : list.pieces) bytes += piece.text.size();
    std::string& mapped = list.storage.emplace_back();
    mapped.reserve(bytes * kByteLevelGrowth);  // the views below need it to stay where it is
    for (Piece& piece : list.pieces) {
      const size_t begin = mapped.size();
      append_byte_level(piece.text, mapped);
      piece.text = std::string_view(mapped).substr(begin);
    }
  }

 private:
  bool add_prefix_space_;
  bool use_regex_;
  Pattern words_;
};

class MetaspaceStep final : public PreTokenizer {
 public:
  explicit MetaspaceStep(const JsonField& field)
      : replacement_(field.at("replacement").string()),
        split_(field.boolean_or("split", true)),
        cut_at_(Pattern::literal(" ")) {
    field.allow_only({"type", "replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"});
    field.at("replacement").character();
    cut_at_ = Pattern::literal(replacement_);
    const bool prefixed = field.boolean_or("add_prefix_space", true);
    const auto scheme = field.find("prepend_scheme");
    const std::string name = scheme ? scheme->string() : prefixed ? "always" : "never";
    if (name != "always" && name != "first" && name != "never") scheme->fail("must be always, first or never");
    if (!prefixed && name != "never") scheme->fail("contradicts add_prefix_space = false");
    prepend_ = name == "always" ? Prepend::kAlways : name == "first" ? Prepend::kFirst : Prepend::kNever;
  }

  void apply(PieceList& list) const override {
    for (Piece& piece : list.pieces) {
      std::string marked;
      marked.reserve(piece.text.size() + piece.text.size() / 2);
      for (const char c : piece.text) c == ' ' ? void(marked.append(replacement_)) : marked.push_back(c);
      const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.at_start);
      if (wanted && !marked.starts_with(replacement_)) marked.insert(0, replacement_);
      list.storage.push_back(std::move(marked));
      piece.text = list.storage.back();
    }
    if (split_) cut(list, cut_at_, SplitBehavior::kMergedWithNext, false);
  }

 private:
  enum class Prepend { kAlways, kFirst, kNever };
  std::string replacement_;
  bool split_;
  Pattern cut_at_;
  Prepend prepend_ = Prepend::kAlways;
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<const PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(PieceList& list) const override {
    for (const auto& step : steps_) step->apply(list);
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> steps_;
};

std::unique_ptr<const PreTokenizer> read(const JsonField& field, int depth) {
  const std::string& type = field.at("type").string();
  if (type == "ByteLevel") return std::make_unique<ByteLevelStep>(field);
  if (type == "Split") return std::make_unique<SplitStep>(field);
  if (type == "Digits") return std::make_unique<DigitsStep>(field);
  if (type == "Metaspace") return std::make_unique<MetaspaceStep>(field);
  if (type == "Sequence") {
    field.allow_only({"type", "pretokenizers"});
    if (depth == kMaxDepth) field.refuse("a Sequence this deep");
    std::vector<std::unique_ptr<const PreTokenizer>> steps;
    field.at("pretokenizers").for_each([&](const JsonField& step) { steps.push_back(read(step, depth + 1)); });
    return std::make_unique<PreTokenizerSequence>(std::move(steps));
  }
  field.refuse("pre-tokenizer '" + type + "'");
}

}  // namespace

std::unique_ptr<const PreTokenizer> read_pre_tokenizer(const JsonField& field) { return read(field, 0); }

}  // namespace scd
