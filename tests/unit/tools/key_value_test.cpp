#include "tools/scd/key_value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

#include "common/base/error.h"
#include "tests/support/test_data.h"

namespace scd {
namespace {

constexpr char kCase[] =
    R"({"ordered_kv_records": [["a", "1"], ["b", "2"], ["c", "3"], ["d", "4"], ["e", "5"]], "key": "d", "value": "4"})";

KeyValueCase five(const std::string& key, const std::string& value) {
  return {{{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}, {"e", "5"}}, key, value};
}

// The context ends with the object.
auto object_is(const std::string& object) { return ::testing::EndsWith("JSON data:\n" + object); }

std::filesystem::path file_of(const std::string& name) { return std::filesystem::path(::testing::TempDir()) / name; }

TEST(KeyValue, all_records_are_the_context) {
  const Question question = key_value_question(five("b", "2"), 0);
  EXPECT_THAT(question.context,
              object_is("{\"a\": \"1\",\n \"b\": \"2\",\n \"c\": \"3\",\n \"d\": \"4\",\n \"e\": \"5\"}"));
  EXPECT_EQ(make_prompt(question), question.context + "\n\nKey: \"b\"\nCorresponding value:");
  EXPECT_EQ(question.answers, std::vector<std::string>{"2"});
}

TEST(KeyValue, fewer_records_keep_the_asked_one_at_its_relative_place) {
  EXPECT_THAT(key_value_question(five("a", "1"), 3).context,
              object_is("{\"a\": \"1\",\n \"b\": \"2\",\n \"c\": \"3\"}"));
  EXPECT_THAT(key_value_question(five("c", "3"), 3).context,
              object_is("{\"b\": \"2\",\n \"c\": \"3\",\n \"d\": \"4\"}"));
  EXPECT_THAT(key_value_question(five("e", "5"), 3).context,
              object_is("{\"c\": \"3\",\n \"d\": \"4\",\n \"e\": \"5\"}"));
  EXPECT_THAT(key_value_question(five("d", "4"), 1).context, object_is("{\"d\": \"4\"}"));
  EXPECT_EQ(key_value_question(five("d", "4"), 99).context, key_value_question(five("d", "4"), 0).context);
}

TEST(KeyValue, a_key_that_no_record_holds_is_refused) {
  EXPECT_THROW(key_value_question(five("z", "1"), 0), Error);
  EXPECT_THROW(key_value_question(five("a", "2"), 0), Error);
}

TEST(KeyValue, lines_are_read_plain_and_compressed) {
  const auto plain = file_of("scd_key_value.jsonl"), packed = file_of("scd_key_value.jsonl.gz");
  std::ofstream(plain) << kCase << "\n" << kCase << "\n";
  gzFile out = gzopen(packed.c_str(), "wb");
  gzputs(out, kCase);
  gzclose(out);
  EXPECT_EQ(read_questions(plain).size(), 2u);
  const auto questions = read_questions(packed, {.keys = 2});
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_THAT(questions[0].context, object_is("{\"c\": \"3\",\n \"d\": \"4\"}"));
  EXPECT_EQ(task_name(packed), "scd_key_value");
  EXPECT_EQ(task_name(plain), "scd_key_value");
  std::filesystem::remove(plain);
  std::filesystem::remove(packed);
}

TEST(KeyValue, a_broken_line_and_a_cut_archive_are_named) {
  const auto file = file_of("scd_key_value_broken.jsonl");
  const auto refused = [&](const std::string& said) {
    try {
      read_questions(file);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(file.string()));
      EXPECT_THAT(error.what(), ::testing::HasSubstr(said));
    }
  };
  std::ofstream(file) << kCase << "\n{\"ordered_kv_records\": [[\"a\", \"1\"]], \"key\": \"b\", \"value\": \"1\"}\n";
  refused("line 2: no record");
  std::ofstream(file) << kCase << "\n{\"ordered_kv_records\": [[\"a\"]], \"key\": \"a\", \"value\": \"1\"}\n";
  refused("line 2: expected");
  gzFile out = gzopen(file.c_str(), "wb");
  for (int i = 0; i < 1000; ++i) gzprintf(out, "%d %s\n", i, kCase);
  gzclose(out);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  refused("cannot be unpacked");
  std::filesystem::remove(file);
}

TEST(KeyValue, passages_of_nq_lines_are_the_context) {
  const auto file = file_of("scd_nq.jsonl");
  std::ofstream(file) << R"({"question": "q", "answers": ["x"], "ctxs": [{"title": "T", "text": "one."},)"
                      << R"( {"title": "U", "text": "two."}]})"
                      << "\n";
  const auto questions = read_questions(file);
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].context, "T: one.\n\nU: two.");
  std::filesystem::remove(file);
}

TEST(KeyValue, the_published_cases_are_read) {
  const auto cases = testing::test_data("qa/lost_in_the_middle/kv-retrieval-75_keys.jsonl.gz");
  const auto passages = testing::test_data("qa/lost_in_the_middle/nq-open-oracle.jsonl.gz");
  if (!cases || !passages) GTEST_SKIP() << "no qa/lost_in_the_middle in the test data";
  const auto questions = read_questions(*cases, {.keys = 10});
  ASSERT_EQ(questions.size(), 500u);
  for (const Question& question : questions) {
    EXPECT_THAT(question.context, ::testing::HasSubstr("\"" + question.id + "\": \"" + question.answers[0] + "\""));
    EXPECT_EQ(std::ranges::count(question.context, '\n'), 3 + 9);
  }
  EXPECT_EQ(read_questions(*passages).size(), 2655u);
}

}  // namespace
}  // namespace scd
