// Question sets for eval and bench: whatever form the file has, the same records come out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace scd {

struct Question {
  std::string id;
  std::string context;
  std::string question;
  std::vector<std::string> answers;  // any of them is right
};

// Reads SQuAD-format JSON, HotpotQA JSON, bAbI text or JSON lines {context, question, answers}; the form is told by the
// content. Errors name the file, the line or the field, and what was expected.
std::vector<Question> read_questions(const std::filesystem::path& file);

// Joins each question's passage with up to `passages` - 1 other passages of the set (deterministic, own passage at a
// seeded place): SQuAD with longer contexts.
void widen_contexts(std::vector<Question>& questions, int32_t passages, uint64_t seed);

// The prompt every task uses; the answer follows after one space.
std::string make_prompt(const Question& question);

}  // namespace scd
