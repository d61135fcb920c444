// Small tokenizer.json files, written by the tests themselves.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/tokenizer/tokenizer.h"

namespace scd::testing {

// Every field as the JSON that stands in the file.
struct TokenizerSpec {
  std::vector<std::string> vocab = {"<unk>", "a", "b", "c", "d", "1", "2", " ", "▁", ".", "ab", "▁a", "▁ab", "cd", "é"};
  std::string merges = R"(["▁ a", "▁a b", "a b", "c d"])";
  std::string settings = R"("unk_token": "<unk>")";  // of the model
  std::string added_tokens = "[]";
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string post_processor = "null";
  std::string decoder = R"({"type": "Fuse"})";
};

inline std::string json_text(const TokenizerSpec& spec) {
  std::string vocab;
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    vocab += (id == 0 ? "\"" : ", \"") + spec.vocab[id] + "\": " + std::to_string(id);
  }
  return R"({"version": "1.0", "added_tokens": )" + spec.added_tokens + R"(, "normalizer": )" + spec.normalizer +
         R"(, "pre_tokenizer": )" + spec.pre_tokenizer + R"(, "post_processor": )" + spec.post_processor +
         R"(, "decoder": )" + spec.decoder + R"(, "model": {"type": "BPE", )" + spec.settings + R"(, "vocab": {)" +
         vocab + R"(}, "merges": )" + spec.merges + "}}";
}

// A file that lives as long as the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              ("scd_tokenizer_" + std::to_string(getpid()) + "_" + std::to_string(next_number()++) + ".json")) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  static int& next_number() {
    static int number = 0;
    return number;
  }
  std::filesystem::path path_;
};

inline Tokenizer tokenizer_from(const std::string& json) { return Tokenizer::from_file(TemporaryFile(json).path()); }
inline Tokenizer tokenizer_from(const TokenizerSpec& spec) { return tokenizer_from(json_text(spec)); }

// The tokens of the text as they are written in the vocabulary.
inline std::vector<std::string> tokens_of(const Tokenizer& tokenizer, const std::string& text,
                                          EncodeOptions options = {}) {
  std::vector<std::string> tokens;
  for (const TokenId id : tokenizer.encode(text, options)) tokens.emplace_back(tokenizer.id_to_token(id));
  return tokens;
}

inline std::vector<TokenId> ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  std::vector<TokenId> ids;
  for (const std::string& token : tokens) ids.push_back(tokenizer.token_to_id(token).value());
  return ids;
}

// What loading this file says when it fails: "INVALID_ARGUMENT: ...", or "loaded".
inline std::string failure_of(const std::string& json) {
  try {
    tokenizer_from(json);
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
  return "loaded";
}
inline std::string failure_of(const TokenizerSpec& spec) { return failure_of(json_text(spec)); }

}  // namespace scd::testing
