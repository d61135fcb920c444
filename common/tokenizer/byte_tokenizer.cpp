#include "common/tokenizer/byte_tokenizer.h"

#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/tokenizer/byte_level.h"

namespace scd {
namespace {

struct TwoParts {
  std::string left;
  std::string right;
};

// The first `count` of " a".."z", "aa".."zz", "aaa".., each as the two tokens it merges from.
std::vector<TwoParts> letter_tokens(size_t count) {
  std::vector<TwoParts> tokens;
  std::vector<std::string> stems;
  std::string space;
  append_byte_level(" ", space);
  stems.push_back(space);
  for (char letter = 'a'; letter <= 'z'; ++letter) stems.emplace_back(1, letter);
  while (true) {
    std::vector<std::string> longer;
    for (const std::string& stem : stems) {
      for (char letter = 'a'; letter <= 'z'; ++letter) {
        if (tokens.size() == count) return tokens;
        tokens.push_back({stem, std::string(1, letter)});
        if (stem != space) longer.push_back(stem + letter);
      }
    }
    stems = std::move(longer);
  }
}

std::string quoted(std::string_view token) {
  std::string text = "\"";
  for (const char c : token) {
    if (c == '"' || c == '\\') text.push_back('\\');
    text.push_back(c);
  }
  return text + "\"";
}

constexpr std::string_view kHead = R"({
 "version": "1.0", "truncation": null, "padding": null,
 "added_tokens": [
  {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
  {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
  {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
 "normalizer": null,
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
 "post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
 "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
 "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
  "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2)";

}  // namespace

std::string make_byte_tokenizer_json(int vocab_size) {
  if (vocab_size < kByteTokenizerMinVocab || vocab_size > kByteTokenizerMaxVocab) {
    throw Error(ErrorCode::kInvalidArgument, "a byte tokenizer has from " + std::to_string(kByteTokenizerMinVocab) +
                                                 " to " + std::to_string(kByteTokenizerMaxVocab) + " tokens, not " +
                                                 std::to_string(vocab_size));
  }
  std::string vocab(kHead);
  std::string merges;
  int id = 3;
  const auto add = [&](const std::string& token) {
    vocab.append(", ").append(quoted(token)).append(": ").append(std::to_string(id++));
  };
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    append_byte_level(std::string(1, static_cast<char>(byte)), character);
    add(character);
  }
  for (const TwoParts& token : letter_tokens(static_cast<size_t>(vocab_size - id))) {
    add(token.left + token.right);
    merges.append(merges.empty() ? "" : ", ").append("[\"").append(token.left).append("\", \"");
    merges.append(token.right).append("\"]");
  }
  return vocab + "},\n  \"merges\": [" + merges + "]}\n}\n";
}

}  // namespace scd
