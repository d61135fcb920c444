#include "common/tokenizer/normalizer.h"

#include <utility>
#include <vector>

#include "common/tokenizer/replace.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

constexpr int kMaxDepth = 8;

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(const JsonField& field) : prefix_(field.at("prepend").string()) {
    field.allow_only({"type", "prepend"});
  }
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  explicit ReplaceNormalizer(const JsonField& field) : replace_(field) {}
  void apply(std::string& text) const override { replace_.apply(text); }

 private:
  Replace replace_;
};

class NfcNormalizer final : public Normalizer {
 public:
  void apply(std::string& text) const override { text = compose(text); }
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<const Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(std::string& text) const override {
    for (const auto& step : steps_) step->apply(text);
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> steps_;
};

std::unique_ptr<const Normalizer> read(const JsonField& field, int depth) {
  const std::string& type = field.at("type").string();
  if (type == "Prepend") return std::make_unique<PrependNormalizer>(field);
  if (type == "Replace") return std::make_unique<ReplaceNormalizer>(field);
  if (type == "NFC") {
    field.allow_only({"type"});
    return std::make_unique<NfcNormalizer>();
  }
  if (type == "Sequence") {
    field.allow_only({"type", "normalizers"});
    if (depth == kMaxDepth) field.refuse("a Sequence this deep");
    std::vector<std::unique_ptr<const Normalizer>> steps;
    field.at("normalizers").for_each([&](const JsonField& step) { steps.push_back(read(step, depth + 1)); });
    return std::make_unique<NormalizerSequence>(std::move(steps));
  }
  field.refuse("normalizer '" + type + "'");
}

}  // namespace

std::unique_ptr<const Normalizer> read_normalizer(const JsonField& field) { return read(field, 0); }

}  // namespace scd
