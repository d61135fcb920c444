#include "tools/scd/calibration_text.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <string_view>

#include "common/base/error.h"
#include "common/base/sha256.h"
#include "tools/scd/questions.h"

namespace scd {
namespace {

constexpr size_t kBytesPerToken = 4;  // of English prose, about: how much text makes a window

// A question and its answer, or a piece of prose, which has no prompt.
struct Text {
  std::string prompt;
  std::string rest;
};

// Texts that must stay on one side of the split: the questions about one context.
struct Group {
  Sha256Digest key{};
  std::vector<Text> texts;
};

std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

bool is_question_file(const std::filesystem::path& file) {
  return file.extension() == ".json" || file.extension() == ".jsonl";
}

Sha256Digest key_of(std::string_view text, uint64_t seed) {
  return Sha256().update(std::as_bytes(std::span(&seed, 1))).update(text).finish();
}

void add_questions(const std::filesystem::path& file, uint64_t seed, std::map<Sha256Digest, Group>& groups) {
  for (const Question& question : read_questions(file)) {
    const Sha256Digest key = key_of(question.context, seed);
    Group& group = groups[key];
    group.key = key;
    group.texts.push_back({make_prompt(question), question.answers.empty() ? "" : " " + question.answers.front()});
  }
}

// Pieces of about one window, cut where a line ends.
void add_prose(const std::string& text, const CalibrationTextOptions& options, std::map<Sha256Digest, Group>& groups) {
  const size_t wanted = static_cast<size_t>(options.window) * kBytesPerToken;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.size(), begin + wanted);
    if (end < text.size()) {
      const size_t newline = text.find('\n', end);
      // Without a line end near, at a space: never inside a character.
      const size_t space = text.find(' ', end);
      end = std::min({newline, space == std::string::npos || newline <= end + wanted ? newline : space, text.size()});
    }
    const std::string piece = text.substr(begin, end - begin);
    const Sha256Digest key = key_of(piece, options.seed);
    groups[key] = {key, {{"", piece}}};
    begin = end + 1;
  }
}

class WindowMaker {
 public:
  WindowMaker(const Tokenizer& tokenizer, const CalibrationTextOptions& options)
      : tokenizer_(tokenizer), options_(options) {}

  // The text's ids, its beginning cut off where it is too long: the question stands at the end.
  TokenWindow make(const Text& text) const {
    TokenWindow ids = tokenizer_.encode(text.prompt + text.rest);
    ids.erase(ids.begin(), ids.begin() + cut(ids.size()));
    return ids;
  }

  // How many of the window's first ids are the prompt's.
  size_t prompt_tokens(const Text& text) const {
    if (text.prompt.empty()) return 0;
    const size_t ids = tokenizer_.encode(text.prompt).size();
    const auto cut_off = static_cast<size_t>(cut(tokenizer_.encode(text.prompt + text.rest).size()));
    return ids > cut_off ? ids - cut_off : 0;
  }

  bool long_enough(const TokenWindow& window) const { return static_cast<int64_t>(window.size()) >= options_.shortest; }

 private:
  std::ptrdiff_t cut(size_t ids) const {
    return std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(ids) - static_cast<std::ptrdiff_t>(options_.window));
  }

  const Tokenizer& tokenizer_;
  const CalibrationTextOptions& options_;
};

// Windows of `count` groups, at most `texts` of each; used groups are removed.
KeptText take_windows(std::vector<Group>& groups, const WindowMaker& maker, int64_t count, int64_t texts) {
  KeptText kept;
  size_t used = 0;
  for (; used < groups.size() && count > 0; ++used) {
    int64_t taken = 0;
    for (const Text& text : groups[used].texts) {
      TokenWindow window = maker.make(text);
      if (!maker.long_enough(window)) continue;
      kept.windows.push_back(std::move(window));
      kept.prompts.push_back(maker.prompt_tokens(text));
      if (++taken == texts) break;
    }
    if (taken > 0) --count;
  }
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(used));
  return kept;
}

// First texts of all groups, then second texts, ... until there are enough tokens: many contexts before many questions.
std::vector<TokenWindow> take_tokens(const std::vector<Group>& groups, const WindowMaker& maker, int64_t tokens) {
  std::vector<TokenWindow> windows;
  int64_t left = tokens;
  bool found = true;
  for (size_t turn = 0; found && left > 0; ++turn) {
    found = false;
    for (const Group& group : groups) {
      if (left <= 0) break;
      if (turn >= group.texts.size()) continue;
      found = true;
      TokenWindow window = maker.make(group.texts[turn]);
      if (!maker.long_enough(window)) continue;
      if (static_cast<int64_t>(window.size()) > left) window.resize(static_cast<size_t>(left));
      left -= static_cast<int64_t>(window.size());
      if (maker.long_enough(window)) windows.push_back(std::move(window));
    }
  }
  return windows;
}

std::vector<TokenId> line_ends_of(const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (TokenId id = 0; id < static_cast<TokenId>(tokenizer.vocab_size()); ++id) {
    if (tokenizer.decode(std::span(&id, 1), /*skip_special=*/true).find('\n') != std::string::npos) ids.push_back(id);
  }
  return ids;
}

// Of all files; adds their SHA-256 in their order.
std::map<Sha256Digest, Group> read_groups(const std::vector<std::filesystem::path>& files,
                                          const CalibrationTextOptions& options,
                                          std::vector<std::string>& file_sha256) {
  std::map<Sha256Digest, Group> groups;
  for (const std::filesystem::path& file : files) {
    const std::string content = read_file(file);
    file_sha256.push_back(to_hex(sha256(content)));
    if (is_question_file(file)) {
      add_questions(file, options.seed, groups);
    } else {
      add_prose(content, options, groups);
    }
  }
  return groups;
}

// In the order of their hashes, questions before prose.
std::vector<Group> in_order(std::map<Sha256Digest, Group> by_hash) {
  std::vector<Group> groups;
  for (auto& [key, group] : by_hash) groups.push_back(std::move(group));
  std::ranges::stable_partition(groups, [](const Group& group) { return !group.texts.front().prompt.empty(); });
  return groups;
}

KeptText check_windows(std::map<Sha256Digest, Group> by_hash, const WindowMaker& maker,
                       const CalibrationTextOptions& options) {
  std::vector<Group> groups = in_order(std::move(by_hash));
  KeptText kept = take_windows(groups, maker, options.held_out_contexts, options.held_out_questions);
  if (!kept.windows.empty()) return kept;
  throw Error(ErrorCode::kInvalidArgument,
              "too little text to check on: not one window of " + std::to_string(options.shortest) + " tokens");
}

}  // namespace

int64_t count_tokens(const std::vector<TokenWindow>& windows) {
  int64_t tokens = 0;
  for (const TokenWindow& window : windows) tokens += static_cast<int64_t>(window.size());
  return tokens;
}

CalibrationText read_calibration_text(const Tokenizer& tokenizer, const CalibrationTextOptions& options) {
  CalibrationText text;
  const WindowMaker maker(tokenizer, options);
  std::map<Sha256Digest, Group> by_hash = read_groups(options.files, options, text.file_sha256);
  if (!options.check_files.empty()) {
    std::vector<std::string> unused;
    std::map<Sha256Digest, Group> check = read_groups(options.check_files, options, unused);
    for (const auto& [key, group] : check) by_hash.erase(key);
    text.held_out = check_windows(std::move(check), maker, options);
  }
  std::vector<Group> groups = in_order(std::move(by_hash));
  const auto share = std::min<int64_t>(options.held_out_contexts, static_cast<int64_t>(groups.size()) / 3);
  if (options.check_files.empty()) text.held_out = take_windows(groups, maker, share, options.held_out_questions);
  text.validation = take_windows(groups, maker, share, options.held_out_questions);
  std::ranges::sort(groups, {}, &Group::key);
  text.fit = take_tokens(groups, maker, options.tokens);
  if (text.held_out.windows.empty() || text.validation.windows.empty() || text.fit.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "too little text to calibrate on: it is split into text to fit, to validate and to hold out, each of "
                "at least one window of " +
                    std::to_string(options.shortest) + " tokens");
  }
  text.line_ends = line_ends_of(tokenizer);
  return text;
}

CalibrationText read_check_text(const Tokenizer& tokenizer, const CalibrationTextOptions& options) {
  CalibrationText text;
  std::map<Sha256Digest, Group> by_hash = read_groups(options.check_files, options, text.file_sha256);
  text.held_out = check_windows(std::move(by_hash), WindowMaker(tokenizer, options), options);
  text.line_ends = line_ends_of(tokenizer);
  return text;
}

}  // namespace scd
