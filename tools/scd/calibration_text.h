// The text a codec is calibrated on: files -> windows of token ids, split by hash so that nothing held out is ever
// fitted, not even another question about the same context.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/token.h"
#include "common/tokenizer/tokenizer.h"

namespace scd {

struct CalibrationTextOptions {
  // .json and .jsonl: question sets as tools/scd/questions.h reads them, each prompt followed by its first answer;
  // anything else: plain UTF-8 text.
  std::vector<std::filesystem::path> files;
  // Of the same kinds: what the final check is made on instead of a part of `files`, such as text of the lengths that
  // are served. A context or piece that stands here is not fitted.
  std::vector<std::filesystem::path> check_files = {};
  int64_t tokens = 32768;          // to fit on
  int64_t window = 1024;           // longest window, in tokens
  int64_t shortest = 96;           // shorter windows are left out
  int64_t held_out_contexts = 8;   // (or pieces of prose) for the final check, and as many for validation
  int64_t held_out_questions = 4;  // about each of them, at most
  uint64_t seed = 1;
};

using TokenWindow = std::vector<TokenId>;

// Text that nothing is fitted on. Questions about one context stand one after the other.
struct KeptText {
  std::vector<TokenWindow> windows;
  // By window: first tokens that are a question's prompt, the rest its answer; 0 of prose, and of windows beyond these.
  std::vector<size_t> prompts = {};
};

struct CalibrationText {
  std::vector<TokenWindow> fit;
  KeptText validation;                   // stops training, weighs errors, ranks layers and plans
  KeptText held_out;                     // touched once, at the end
  std::vector<std::string> file_sha256;  // of those to fit on
  std::vector<TokenId> line_ends = {};   // rising; ids whose text holds a line end, with which an answer is complete
};

int64_t count_tokens(const std::vector<TokenWindow>& windows);

// The same files, options and tokenizer give the same windows. Where there are questions, those are what is kept, and
// prose is to fit on only. Throws Error: kNotFound for a missing file,
// kInvalidArgument for text that is not UTF-8 or too short to be split in three.
CalibrationText read_calibration_text(const Tokenizer& tokenizer, const CalibrationTextOptions& options);

// Of check_files alone: held_out, file_sha256 (of these) and line_ends. Throws like read_calibration_text().
CalibrationText read_check_text(const Tokenizer& tokenizer, const CalibrationTextOptions& options);

}  // namespace scd
