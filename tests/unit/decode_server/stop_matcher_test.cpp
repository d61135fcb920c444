#include "decode_server/generate/stop_matcher.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

std::string push_all(StopMatcher& matcher, const std::vector<std::string>& pieces, bool& stopped) {
  std::string text;
  stopped = false;
  for (const std::string& piece : pieces) {
    if (stopped) break;
    const auto output = matcher.push(piece);
    text += output.text;
    stopped = output.stopped;
  }
  return text;
}

TEST(StopMatcher, without_stop_strings_everything_passes_at_once) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, finds_a_stop_string_wherever_the_pieces_are_cut) {
  const std::string text = "one two three\n\nfour";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    for (size_t second = cut; second <= text.size(); ++second) {
      StopMatcher matcher({"\n\nf"});
      bool stopped = false;
      const std::string passed =
          push_all(matcher, {text.substr(0, cut), text.substr(cut, second - cut), text.substr(second)}, stopped);
      EXPECT_TRUE(stopped);
      EXPECT_EQ(passed, "one two three") << cut << " " << second;
    }
  }
}

TEST(StopMatcher, holds_back_what_may_become_a_stop_string_and_lets_it_go_when_it_does_not) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("the E").text, "the ");
  EXPECT_EQ(matcher.push("N").text, "");
  EXPECT_EQ(matcher.push("Emy").text, "ENEmy");
}

TEST(StopMatcher, a_failed_beginning_may_hold_the_real_one) {
  StopMatcher matcher({"aab"});
  bool stopped = false;
  EXPECT_EQ(push_all(matcher, {"a", "a", "a", "b"}, stopped), "a");
  EXPECT_TRUE(stopped);
}

TEST(StopMatcher, the_first_of_several_stop_strings_wins) {
  StopMatcher matcher({"three", "two"});
  const auto output = matcher.push("one two three");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "one ");
  EXPECT_EQ(output.stop_string, "two");
}

TEST(StopMatcher, what_was_held_back_comes_out_at_the_end) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("thE").text, "th");
  EXPECT_EQ(matcher.flush(), "E");
}

TEST(StopMatcher, text_that_may_not_stop_yet_passes_whole) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.pass("an END"), "an END");
  EXPECT_TRUE(matcher.push("END").stopped);
}

}  // namespace
}  // namespace scd
