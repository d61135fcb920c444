#include "decode_server/prefill_forecast.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// 1000 tokens take a second here, half a second at "fast", two seconds at "slow"; handing a token over takes 0.1 ms.
class PrefillForecastTest : public ::testing::Test {
 protected:
  PrefillForecastTest() {
    forecast_.computed_here(1000, seconds(1));
    forecast_.computed_there("slow", 1000, seconds(2));
    forecast_.computed_there("fast", 1000, milliseconds(500));
  }
  static ForecastQuestion prompt(const std::string& endpoint, int64_t tokens) {
    return {.endpoint = endpoint,
            .fresh_tokens = tokens,
            .handover_tokens = tokens,
            .local_tokens = tokens,
            .transfer_seconds_per_token = 1e-4};
  }
  FirstTokenForecast predict(const ForecastQuestion& question) {
    const auto forecast = forecast_.predict(question, ServingClock::now());
    return forecast.value_or(FirstTokenForecast{});
  }
  PrefillForecast forecast_;
};

TEST_F(PrefillForecastTest, the_sooner_way_is_taken) {
  const auto fast = predict(prompt("fast", 1000));
  EXPECT_FALSE(fast.local);
  EXPECT_NEAR(fast.seconds(), 0.6, 1e-9);
  EXPECT_NEAR(fast.other_seconds(), 1.0, 1e-9);
  const auto slow = predict(prompt("slow", 1000));
  EXPECT_TRUE(slow.local);
  EXPECT_NEAR(slow.seconds(), 1.0, 1e-9);
  EXPECT_NEAR(slow.other_seconds(), 2.1, 1e-9);
}

TEST_F(PrefillForecastTest, codes_that_are_stored_need_no_computing) {
  auto question = prompt("slow", 1000);
  question.fresh_tokens = 0;
  EXPECT_FALSE(predict(question).local);
  EXPECT_NEAR(predict(question).seconds(), 0.1, 1e-9);
}

TEST_F(PrefillForecastTest, queues_count_on_both_sides) {
  auto question = prompt("fast", 1000);
  question.queued_tokens = 2000;
  EXPECT_TRUE(predict(question).local);
  EXPECT_NEAR(predict(question).other_seconds(), 1.6, 1e-9);
  forecast_.set_backlog(1000);
  forecast_.add_backlog(2000);
  EXPECT_FALSE(predict(question).local);
  EXPECT_NEAR(predict(question).other_seconds(), 4.0, 1e-9);
}

TEST_F(PrefillForecastTest, the_suffix_is_computed_here_in_any_case) {
  auto question = prompt("fast", 1000);
  question.local_tokens = 1500;
  EXPECT_NEAR(predict(question).seconds(), 0.6 + 0.5, 1e-9);
  EXPECT_NEAR(predict(question).other_seconds(), 1.5, 1e-9);
}

TEST_F(PrefillForecastTest, a_small_difference_does_not_bring_a_prompt_here) {
  auto question = prompt("fast", 1000);
  question.transfer_seconds_per_token = 0.6e-3;  // 1.1 s there, 1.0 s here
  EXPECT_FALSE(predict(question).local);
  question.transfer_seconds_per_token = 0.7e-3;
  EXPECT_TRUE(predict(question).local);
}

TEST_F(PrefillForecastTest, an_endpoint_not_measured_is_taken_to_be_like_the_others) {
  EXPECT_NEAR(predict(prompt("new", 1000)).handover_seconds, 1.7 + 0.1, 1e-9) << "2 s, and a fifth of 0.5 s";
}

TEST_F(PrefillForecastTest, sums_are_scaled_by_what_came_of_earlier_ones) {
  const auto first = predict(prompt("fast", 1000));
  forecast_.observe(first, 0.3, ServingClock::now());  // half of it overlapped
  EXPECT_NEAR(predict(prompt("fast", 1000)).handover_seconds, 0.3, 1e-9);
  EXPECT_NEAR(predict(prompt("fast", 1000)).local_seconds, 1.0, 1e-9);
  const auto local = predict(prompt("slow", 100000));
  EXPECT_FALSE(local.local) << "2.1 / 2";
}

TEST_F(PrefillForecastTest, one_sum_that_was_far_off_is_forgotten_by_a_few_that_were_not) {
  FirstTokenForecast forecast{.unscaled_seconds = 1};
  const auto now = ServingClock::now();
  forecast_.observe(forecast, 1e6, now);
  for (int i = 0; i < 20; ++i) forecast_.observe(forecast, 1, now);
  EXPECT_LT(predict(prompt("fast", 1000)).handover_seconds, 2 * 0.6);
}

TEST_F(PrefillForecastTest, nothing_is_predicted_before_everything_was_measured) {
  auto question = prompt("fast", 1000);
  question.transfer_seconds_per_token.reset();
  EXPECT_FALSE(forecast_.predict(question, ServingClock::now()).has_value());
  PrefillForecast fresh;
  EXPECT_FALSE(fresh.predict(prompt("fast", 1000), ServingClock::now()).has_value());
  fresh.computed_there("fast", 1000, seconds(1));
  EXPECT_FALSE(fresh.predict(prompt("fast", 1000), ServingClock::now()).has_value());
  fresh.computed_here(8, milliseconds(1));  // too few to tell
  EXPECT_FALSE(fresh.predict(prompt("fast", 1000), ServingClock::now()).has_value());
}

TEST_F(PrefillForecastTest, what_was_measured_long_ago_is_measured_again) {
  EXPECT_TRUE(forecast_.predict(prompt("fast", 1000), ServingClock::now() + seconds(50)).has_value());
  EXPECT_FALSE(forecast_.predict(prompt("fast", 1000), ServingClock::now() + seconds(70)).has_value());
}

}  // namespace
}  // namespace scd
