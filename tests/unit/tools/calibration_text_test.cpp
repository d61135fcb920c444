// The text that calibration reads, and which of its tokens a check scores.
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>

#include "calibration_models.h"
#include "common/codec/registry.h"
#include "common/tokenizer/byte_tokenizer.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/scored_text.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class ScoredWindows : public ::testing::Test {
 protected:
  void SetUp() override {
    models_.make("base", {.seed = 3});
    models_.make("tuned", {.seed = 3, .perturb = 0.1, .perturb_seed = 9});
  }

  testing::CalibrationModels models_{"scd_scored_windows_"};
};

// Of a question the consumer's own answer counts, of prose what the consumer runs itself.
TEST_F(ScoredWindows, ScoresWhatTheConsumerAnswers) {
  CalibrationText text = models_.text;
  text.held_out.prompts = {100};
  const CalibrationInput input{models_.model("base"), models_.model("tuned"), {}, {}, text};
  const ScoredText scored = held_out_text(input, {});
  CacheExperiment experiment(models_.model("tuned"), models_.model("tuned"), 160);
  TokenWindow asked(text.held_out.windows[0].begin(), text.held_out.windows[0].begin() + 100);
  experiment.set_prompt(asked, {});
  const std::vector<TokenId> answer = experiment.generate(24);
  asked.insert(asked.end(), answer.begin(), answer.end() - 1);
  ASSERT_EQ(scored.windows.size(), 4U);
  EXPECT_EQ(scored.windows[0], asked);
  EXPECT_EQ(scored.scored[0], std::ssize(answer));
  EXPECT_EQ(scored.windows[1], text.held_out.windows[1]);
  EXPECT_EQ(scored.scored[1], 120 - handover_tokens(120, 32));
  // The first id of the answer as what ends one.
  text.line_ends = {answer[0]};
  EXPECT_EQ(held_out_text(input, {}).scored[0], 1);
}

TEST_F(ScoredWindows, TheBoundIsAboveTheMeanOfContextsThatDiffer) {
  const CodecModel a = codec_model_of(models_.model("base").config());
  const auto encoder = make_encoder(CodecId::kRaw, a, nullptr);
  const auto decoder = make_decoder(CodecId::kRaw, a, codec_model_of(models_.model("tuned").config()), nullptr);
  const CodecUnderCheck raw[] = {{*encoder, *decoder}};
  const CodecPrediction found = check_codecs(models_.model("base"), models_.model("tuned"),
                                             last_tokens_of(models_.text.held_out.windows, {}), {}, raw, "raw")[0]
                                    .prediction;
  EXPECT_GT(found.kl_upper, found.kl);
  EXPECT_LT(found.kl_upper, 4 * found.kl);
}

// A batch of questions about one context gives what each of them alone does.
TEST_F(ScoredWindows, QuestionsAboutOneContextAreCheckedInOneBatch) {
  TokenWindow one = models_.text.held_out.windows[0], other = one;
  for (size_t i = 112; i < 120; ++i) other[i] = (other[i] + 7) % 250;
  const CodecModel a = codec_model_of(models_.model("base").config()),
                   b = codec_model_of(models_.model("tuned").config());
  const auto encoder = make_encoder(CodecId::kRaw, a, nullptr);
  const auto decoder = make_decoder(CodecId::kRaw, a, b, nullptr);
  const CodecUnderCheck raw[] = {{*encoder, *decoder}};
  const auto check = [&](const ScoredText& text) {
    return check_codecs(models_.model("base"), models_.model("tuned"), text, {}, raw, "raw")[0].prediction;
  };
  ASSERT_EQ(windows_of_a_context(std::vector{one, other}), 2U);
  ASSERT_EQ(windows_of_a_context(std::vector{one, models_.text.held_out.windows[1]}), 1U);
  const CodecPrediction both = check({{one, other}, {8, 4}});
  EXPECT_NEAR(both.kl_upper, both.kl, 1e-12);  // one context: nothing to draw from
  EXPECT_NEAR(12 * both.kl, 8 * check({{one}, {8}}).kl + 4 * check({{other}, {4}}).kl, 1e-4);
  EXPECT_EQ(both.bytes_per_token, check({{one}, {8}}).bytes_per_token);
}

void write_questions(const fs::path& file, int first, int end) {
  std::ofstream questions(file);
  for (int context = first; context < end; ++context) {
    for (int question = 0; question < 2; ++question) {
      questions << R"({"context": "Context )" << context << std::string(200, 'x') << R"(", "question": "Q)" << question
                << R"(?", "answers": ["yes"]})"
                << "\n";
    }
  }
}

// Contexts 30 to 49 to check on; of 0 to 39 those that stand there too are not fitted.
TEST(CalibrationText, CheckTextIsWhatIsHeldOutAndNoneOfItIsFitted) {
  const fs::path root = fs::temp_directory_path() / ("scd_check_text_" + std::to_string(::getpid()));
  fs::create_directories(root);
  std::ofstream(root / "tokenizer.json") << make_byte_tokenizer_json(320);
  const Tokenizer tokenizer = Tokenizer::from_file(root / "tokenizer.json");
  write_questions(root / "set.jsonl", 0, 40);
  write_questions(root / "check.jsonl", 30, 50);
  CalibrationTextOptions options{
      .files = {root / "set.jsonl"}, .check_files = {root / "check.jsonl"}, .tokens = 100000, .held_out_contexts = 6};
  const CalibrationText text = read_calibration_text(tokenizer, options);
  const auto number = [&](const TokenWindow& window) { return std::stoi(tokenizer.decode(window, true).substr(8)); };
  EXPECT_EQ(text.held_out.windows.size(), 12U);
  EXPECT_EQ(text.validation.windows.size(), 12U);
  EXPECT_EQ(text.fit.size(), 2U * (30 - 6));
  EXPECT_EQ(text.file_sha256.size(), 1U);
  for (const TokenWindow& window : text.held_out.windows) EXPECT_GE(number(window), 30);
  for (const TokenWindow& window : text.fit) EXPECT_LT(number(window), 30);
  const CalibrationText check = read_check_text(tokenizer, options);
  EXPECT_EQ(check.held_out.windows, text.held_out.windows);
  EXPECT_TRUE(check.fit.empty() && check.validation.windows.empty());
  EXPECT_EQ(check.file_sha256.size(), 1U);
  fs::remove_all(root);
}

TEST(CalibrationText, SplitsByHashAndKeepsTheQuestionsOfAContextTogether) {
  const fs::path root = fs::temp_directory_path() / ("scd_calibration_text_" + std::to_string(::getpid()));
  fs::create_directories(root / "model");
  std::ofstream(root / "model" / "tokenizer.json") << make_byte_tokenizer_json(320);
  const Tokenizer tokenizer = Tokenizer::from_file(root / "model" / "tokenizer.json");
  write_questions(root / "set.jsonl", 0, 40);
  const CalibrationTextOptions options{.files = {root / "set.jsonl"}, .tokens = 100000, .held_out_contexts = 4};
  const CalibrationText text = read_calibration_text(tokenizer, options);
  ASSERT_EQ(text.held_out.windows.size(), 8U);  // both questions of four contexts
  ASSERT_EQ(text.validation.windows.size(), 8U);
  EXPECT_EQ(one_of_each_context(text.validation).windows.size(), 4U);
  EXPECT_EQ(text.fit.size(), 64U);
  ASSERT_EQ(text.validation.prompts.size(), 8U);
  ASSERT_EQ(text.held_out.prompts.size(), 8U);
  for (size_t i = 0; i < 8; ++i) {
    const std::span<const TokenId> answer = std::span(text.validation.windows[i]).subspan(text.validation.prompts[i]);
    EXPECT_EQ(tokenizer.decode(answer, true), " yes");
  }
  EXPECT_EQ(text.line_ends, tokenizer.encode("\n", {.add_special_tokens = false, .parse_special = false}));
  const auto context_of = [&](const TokenWindow& window) { return tokenizer.decode(window, true).substr(0, 12); };
  for (const TokenWindow& held_out : text.held_out.windows) {
    EXPECT_THAT(tokenizer.decode(held_out, true), HasSubstr("Answer: yes"));
    for (const TokenWindow& window : text.fit) EXPECT_NE(context_of(window), context_of(held_out));
  }
  for (size_t i = 0; i < text.held_out.windows.size(); i += 2) {
    EXPECT_EQ(windows_of_a_context(std::span(text.held_out.windows).subspan(i)), 2U);
  }
  const CalibrationText again = read_calibration_text(tokenizer, options);
  EXPECT_EQ(again.fit, text.fit);
  EXPECT_EQ(again.held_out.windows, text.held_out.windows);
  CalibrationTextOptions single = options;
  single.held_out_questions = 1;
  EXPECT_EQ(read_calibration_text(tokenizer, single).held_out.windows.size(), 4U);
  CalibrationTextOptions missing = options;
  missing.check_files = {root / "nothing.jsonl"};
  EXPECT_THROW(read_calibration_text(tokenizer, missing), Error);
  EXPECT_THROW(read_check_text(tokenizer, missing), Error);
  missing.check_files.clear();
  missing.files = {root / "nothing.txt"};
  EXPECT_THROW(read_calibration_text(tokenizer, missing), Error);
  fs::remove_all(root);
}

}  // namespace
}  // namespace scd
