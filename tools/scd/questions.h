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
  std::string closing = {};          // what follows the context in the prompt, of tasks with a form of their own
};

struct QuestionFileOptions {
  int32_t keys = 0;  // of key-value cases: records kept around the one asked for; 0: all
};

// Reads SQuAD-format JSON, HotpotQA JSON, bAbI text or JSON lines, compressed by gzip or not; the form is told by the
// content. Lines are {context, question, answers}, {ctxs: [{title, text}], question, answers} as in NQ-open, or
// {ordered_kv_records: [[key, value]], key, value}. Errors name the file, the line or the field, and what was expected.
std::vector<Question> read_questions(const std::filesystem::path& file, const QuestionFileOptions& options = {});

// What reports call the file's questions: its name without .gz and without its form's ending.
std::string task_name(const std::filesystem::path& file);

// Joins each question's passage with up to `passages` - 1 other passages of the set (deterministic, own passage at a
// seeded place): SQuAD with longer contexts.
void widen_contexts(std::vector<Question>& questions, int32_t passages, uint64_t seed);

// The prompt: the context, then the task's closing, or "Question: ...\nAnswer:". The answer follows after one space.
std::string make_prompt(const Question& question);

}  // namespace scd
