#include "tools/scd/questions.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string_view>

#include "common/base/error.h"
#include "tools/scd/key_value.h"

namespace scd {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{1} << 30;

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, file.string() + ": " + what);
}

// zlib hands through what is not compressed.
std::string read_text(const std::filesystem::path& file) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> stream(gzopen(file.c_str(), "rbe"), &gzclose);
  if (!stream || std::filesystem::is_directory(file)) {
    throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  }
  std::string text;
  std::array<char, 1 << 16> part;
  int bytes = 0;
  while ((bytes = gzread(stream.get(), part.data(), part.size())) > 0) {
    text.append(part.data(), static_cast<size_t>(bytes));
    if (text.size() > kMaxFileBytes) refuse(file, "larger than 1 GiB: not a question file");
  }
  int error = Z_OK;
  const char* why = gzerror(stream.get(), &error);
  if (bytes < 0 || error != Z_OK) refuse(file, std::string("cannot be unpacked: ") + why);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // some editors' byte order mark
  return text;
}

std::vector<Question> from_squad(const Json& root) {
  std::vector<Question> questions;
  for (const Json& article : root.at("data")) {
    for (const Json& paragraph : article.at("paragraphs")) {
      for (const Json& qa : paragraph.at("qas")) {
        Question question{qa.at("id").get<std::string>(),
                          paragraph.at("context").get<std::string>(),
                          qa.at("question").get<std::string>(),
                          {}};
        for (const Json& answer : qa.at("answers")) question.answers.push_back(answer.at("text").get<std::string>());
        if (!question.answers.empty()) questions.push_back(std::move(question));  // SQuAD 2 has unanswerable ones
      }
    }
  }
  return questions;
}

// Two published layouts of the paragraphs: [[title, [sentence]]] and {"title": [title], "sentences": [[sentence]]}.
std::string hotpot_context(const Json& paragraphs) {
  const bool columns = paragraphs.is_object();
  const size_t count = columns ? paragraphs.at("title").size() : paragraphs.size();
  std::string context;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) context += "\n\n";
    context += (columns ? paragraphs.at("title").at(i) : paragraphs.at(i).at(0)).get<std::string>() + ": ";
    for (const Json& sentence : columns ? paragraphs.at("sentences").at(i) : paragraphs.at(i).at(1)) {
      context += sentence.get<std::string>();
    }
  }
  return context;
}

std::vector<Question> from_hotpot(const Json& root) {
  std::vector<Question> questions;
  for (const Json& item : root) {
    std::string context = hotpot_context(item.at("context"));
    questions.push_back({item.value("_id", std::to_string(questions.size())),
                         std::move(context),
                         item.at("question").get<std::string>(),
                         {item.at("answer").get<std::string>()}});
  }
  return questions;
}

// "milk,football", the parts of one answer: as a sentence writes them, then as the file does. Scoring deletes
// punctuation, so that without the space both parts would be one word.
std::vector<std::string> babi_answers(const std::string& written) {
  std::string spaced;
  for (size_t i = 0; i < written.size(); ++i) {
    spaced += written[i];
    if (written[i] == ',' && i + 1 < written.size() && written[i + 1] != ' ') spaced += ' ';
  }
  if (spaced == written) return {written};
  return {spaced, written};
}

// "12 Where is Mary? <tab> bathroom <tab> 1" (some copies have | for the tab): a question about the story's lines so
// far; line 1 starts a new story.
std::vector<Question> from_babi(const std::filesystem::path& file, const std::string& text) {
  std::vector<Question> questions;
  std::istringstream lines(text);
  std::string line, story;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    const size_t space = line.find(' ');
    if (space == std::string::npos) refuse(file, "line " + std::to_string(number) + ": expected '<number> <sentence>'");
    if (line.substr(0, space) == "1") story.clear();
    const std::string rest = line.substr(space + 1);
    const size_t tab = rest.find_first_of("\t|");
    if (tab == std::string::npos) {
      story += (story.empty() ? "" : " ") + rest;
      continue;
    }
    const size_t end = rest.find_first_of("\t|", tab + 1);
    std::string question = rest.substr(0, tab);
    while (!question.empty() && std::isspace(static_cast<unsigned char>(question.back())) != 0) question.pop_back();
    questions.push_back({std::to_string(number), story, question, babi_answers(rest.substr(tab + 1, end - tab - 1))});
  }
  return questions;
}

// NQ-open as "Lost in the Middle" publishes it: the passages are retrieved documents.
std::string passages_context(const Json& passages) {
  std::string context;
  for (const Json& passage : passages) {
    context += (context.empty() ? "" : "\n\n") + passage.at("title").get<std::string>() + ": " +
               passage.at("text").get<std::string>();
  }
  return context;
}

Question from_json_line(const Json& row, const std::string& id, const QuestionFileOptions& options) {
  if (row.contains("ordered_kv_records")) {
    return key_value_question({row.at("ordered_kv_records").get<std::vector<std::pair<std::string, std::string>>>(),
                               row.at("key").get<std::string>(), row.at("value").get<std::string>()},
                              options.keys);
  }
  return {row.value("id", id),
          row.contains("ctxs") ? passages_context(row.at("ctxs")) : row.at("context").get<std::string>(),
          row.at("question").get<std::string>(), row.at("answers").get<std::vector<std::string>>()};
}

std::vector<Question> from_json_lines(const std::filesystem::path& file, const std::string& text,
                                      const QuestionFileOptions& options) {
  std::vector<Question> questions;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = "line " + std::to_string(number) + ": ";
    try {
      questions.push_back(from_json_line(Json::parse(line), std::to_string(number), options));
    } catch (const Json::exception& error) {
      refuse(file, where +
                       "expected {\"context\": text or \"ctxs\": passages, \"question\": text, \"answers\": [text]} or "
                       "{\"ordered_kv_records\": [[key, value]], \"key\": text, \"value\": text}: " +
                       error.what());
    } catch (const Error& error) {
      refuse(file, where + error.what());
    }
    if (questions.back().answers.empty()) refuse(file, where + "no answers");
  }
  return questions;
}

// Whole-file JSON in one of the known forms; nothing when the text is not one JSON value.
std::optional<std::vector<Question>> from_json_file(const std::filesystem::path& file, const std::string& text) {
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return std::nullopt;
  try {
    if (root.is_object() && root.contains("data")) return from_squad(root);
    if (root.is_array()) return from_hotpot(root);
  } catch (const Json::exception& error) {
    refuse(file, std::string("neither SQuAD nor HotpotQA JSON: ") + error.what());
  }
  return std::nullopt;
}

}  // namespace

std::vector<Question> read_questions(const std::filesystem::path& file, const QuestionFileOptions& options) {
  const std::string text = read_text(file);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) refuse(file, "empty");
  std::vector<Question> questions;
  if (text[first] == '{' || text[first] == '[') {
    auto whole = from_json_file(file, text);
    questions = whole ? *std::move(whole) : from_json_lines(file, text, options);
  } else if (std::isdigit(static_cast<unsigned char>(text[first])) != 0) {
    questions = from_babi(file, text);
  } else {
    refuse(file, "not SQuAD JSON, HotpotQA JSON, bAbI text or JSON lines {context, question, answers}");
  }
  if (questions.empty()) refuse(file, "holds no questions");
  return questions;
}

std::string task_name(const std::filesystem::path& file) {
  return (file.extension() == ".gz" ? file.stem() : file).stem().string();
}

void widen_contexts(std::vector<Question>& questions, int32_t passages, uint64_t seed) {
  std::vector<std::string> distinct;
  std::map<std::string, size_t> index;
  for (const Question& question : questions) {
    if (index.emplace(question.context, distinct.size()).second) distinct.push_back(question.context);
  }
  std::vector<std::string> widened(distinct.size());
  for (size_t own = 0; own < distinct.size(); ++own) {
    std::mt19937_64 random(seed * 1'000'003 + own);
    std::vector<size_t> chosen{own};
    while (chosen.size() < std::min(distinct.size(), static_cast<size_t>(passages))) {
      const size_t other = random() % distinct.size();
      if (std::find(chosen.begin(), chosen.end(), other) == chosen.end()) chosen.push_back(other);
    }
    std::swap(chosen[0], chosen[random() % chosen.size()]);
    for (size_t passage : chosen) widened[own] += (widened[own].empty() ? "" : "\n\n") + distinct[passage];
  }
  for (Question& question : questions) question.context = widened[index.at(question.context)];
}

std::string make_prompt(const Question& question) {
  if (!question.closing.empty()) return question.context + question.closing;
  return question.context + "\n\nQuestion: " + question.question + "\nAnswer:";
}

}  // namespace scd
