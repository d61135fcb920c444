#include "tools/scd/questions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/error.h"
#include "tests/support/test_data.h"
#include "tools/scd/answer_score.h"

namespace scd {
namespace {

class QuestionsFile : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    std::ofstream(file_, std::ios::binary) << text;
    return file_;
  }
  ~QuestionsFile() override { std::filesystem::remove(file_); }

 private:
  std::filesystem::path file_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("scd_questions_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(QuestionsFile, json_lines_are_read_line_by_line) {
  const auto questions = read_questions(write(
      "{\"context\": \"c\", \"question\": \"q\", \"answers\": [\"a\", \"b\"]}\n\n{\"context\": \"d\", \"question\": "
      "\"r\", \"answers\": [\"e\"]}\n"));
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_EQ(questions[0].answers, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(make_prompt(questions[1]), "d\n\nQuestion: r\nAnswer:");
}

TEST_F(QuestionsFile, a_broken_line_is_named) {
  const auto file = write("{\"context\": \"c\", \"question\": \"q\", \"answers\": [\"a\"]}\n{\"context\": 3}\n");
  try {
    read_questions(file);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("line 2"));
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

TEST_F(QuestionsFile, prose_an_empty_file_and_a_missing_file_are_refused) {
  EXPECT_THROW(read_questions(write("Once upon a time")), Error);
  EXPECT_THROW(read_questions(write("")), Error);
  EXPECT_THROW(read_questions("/nonexistent/questions.json"), Error);
}

TEST_F(QuestionsFile, babi_questions_see_the_story_so_far) {
  const auto questions = read_questions(
      write("1 Mary moved.\n2 John went.\n3 Where is Mary? \tbathroom\t1\n1 Ann sat.\n2 Where is Ann? \thall\t1\n"));
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_EQ(questions[0].context, "Mary moved. John went.");
  EXPECT_EQ(questions[0].question, "Where is Mary?");
  EXPECT_EQ(questions[1].context, "Ann sat.");
  EXPECT_EQ(questions[1].answers, std::vector<std::string>{"hall"});
}

TEST_F(QuestionsFile, babi_answers_of_several_parts_are_right_with_and_without_a_space) {
  const auto questions = read_questions(write("1 Ann took milk.\n2 What has Ann? \tmilk,football\t1\n"));
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].answers, (std::vector<std::string>{"milk, football", "milk,football"}));
  EXPECT_EQ(score_answer("milk, football", questions[0].answers).exact_match, 1);
  EXPECT_EQ(score_answer("milk,football", questions[0].answers).exact_match, 1);
  EXPECT_DOUBLE_EQ(score_answer("milk", questions[0].answers).f1, 2.0 / 3);
}

TEST_F(QuestionsFile, babi_files_may_have_blank_lines_and_crlf) {
  const auto questions = read_questions(write("1 Mary moved.\r\n\r\n2 Where is Mary? \tbathroom\r\n\n"));
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].context, "Mary moved.");
  EXPECT_EQ(questions[0].answers, std::vector<std::string>{"bathroom"});
}

TEST_F(QuestionsFile, a_byte_order_mark_is_skipped) {
  const std::string mark = "\xEF\xBB\xBF";
  const std::string row = "{\"context\": \"c\", \"question\": \"q\", \"answers\": [\"a\"]}\n";
  EXPECT_EQ(read_questions(write(mark + row)).size(), 1u);
  EXPECT_EQ(read_questions(write(mark + row + row)).size(), 2u);
  EXPECT_EQ(read_questions(write(mark + "[{\"context\": [], \"question\": \"q\", \"answer\": \"a\"}]")).size(), 1u);
  EXPECT_EQ(read_questions(write(mark + "1 Ann sat.\n2 Where is Ann? \thall\t1\n")).size(), 1u);
}

TEST(Questions, the_published_sets_are_read) {
  const auto squad = scd::testing::test_data("qa/squad");
  const auto hotpot = scd::testing::test_data("qa/hotpotqa/hotpot_dev_distractor_v1.json");
  if (!squad || !hotpot) GTEST_SKIP() << "no SQuAD and HotpotQA data at hand (set SCD_TEST_DATA)";
  auto questions = read_questions(*squad / "xquad.en.json");
  EXPECT_EQ(questions.size(), 1190u);
  EXPECT_EQ(read_questions(*hotpot).size(), 100u);
  const std::string own = questions[7].context;
  widen_contexts(questions, 4, 1);
  EXPECT_THAT(questions[7].context, ::testing::HasSubstr(own));
  EXPECT_GT(questions[7].context.size(), own.size() + 300);
}

}  // namespace
}  // namespace scd
