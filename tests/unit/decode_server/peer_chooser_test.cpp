#include "decode_server/receive/peer_chooser.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace scd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kPrompt = 1024;

// A prompt whose first `shared` tokens are those of every other of this family, the rest its own.
std::vector<TokenId> prompt(int64_t shared, TokenId own = 9) {
  std::vector<TokenId> tokens(kPrompt, own);
  std::iota(tokens.begin(), tokens.begin() + shared, 100);
  return tokens;
}

// Three peers and a clock that stands still unless a test moves it.
class PeerChooserTest : public ::testing::Test {
 protected:
  PeerChooserTest() {
    for (PeerId& peer : peers_) peer = chooser_.add();
  }
  std::optional<PeerChoice> choose(const std::vector<uint64_t>& blocks = {}, int64_t tokens = kPrompt,
                                   std::set<PeerId> tried = {}) {
    return chooser_.choose({.tokens = tokens, .blocks = blocks, .tried = std::move(tried)}, now_);
  }
  // Puts load on one.
  void burden(size_t peer, int64_t tokens) {
    std::set<PeerId> others(peers_.begin(), peers_.end());
    others.erase(peers_[peer]);
    ASSERT_TRUE(choose({}, tokens, others).has_value());
  }

  PrefillOptions options_ = [] {
    PrefillOptions options;
    options.prefix_margin_tokens = 1000;
    options.outlier = {.consecutive_failures = 2,
                       .ejection = milliseconds(1000),
                       .max_ejection = milliseconds(2500),
                       .max_ejected_share = 0.7};
    return options;
  }();
  PeerChooser chooser_{options_};
  std::array<PeerId, 3> peers_{};
  PeerChooser::Time now_{seconds(1000)};
};

struct Situation {
  const char* name;
  std::array<int64_t, 3> tokens;  // each has to compute
  std::array<int64_t, 3> known;   // tokens of the prompt of which it has codes
  std::array<bool, 3> up;
  size_t expected;
  ChoiceReason reason;
};

class PeerChoiceTable : public PeerChooserTest, public ::testing::WithParamInterface<Situation> {};

TEST_P(PeerChoiceTable, picks) {
  const Situation& situation = GetParam();
  for (size_t i = 0; i < 3; ++i) {
    if (situation.tokens[i] > 0) burden(i, situation.tokens[i]);
    chooser_.remember(peers_[i], prefix_blocks(prompt(situation.known[i], static_cast<TokenId>(i)), ""));
    if (!situation.up[i]) chooser_.set_up(peers_[i], false);
  }
  const auto choice = choose(prefix_blocks(prompt(kPrompt), ""));
  ASSERT_TRUE(choice.has_value());
  EXPECT_EQ(choice->peer, peers_[situation.expected]);
  EXPECT_EQ(choice->reason, situation.reason);
  const bool knows = situation.up[situation.expected];  // one that is down may have lost its codes
  EXPECT_EQ(choice->known_tokens, knows ? situation.known[situation.expected] : 0);
}

constexpr std::array<bool, 3> kAllUp{true, true, true};
INSTANTIATE_TEST_SUITE_P(
    situations, PeerChoiceTable,
    ::testing::Values(
        Situation{"the_least_loaded", {500, 200, 300}, {0, 0, 0}, kAllUp, 1, ChoiceReason::kLoad},
        Situation{"the_longest_prefix", {0, 0, 0}, {64, 512, 256}, kAllUp, 1, ChoiceReason::kPrefix},
        Situation{"the_longest_prefix_within_the_margin", {0, 1000, 0}, {0, 512, 0}, kAllUp, 1, ChoiceReason::kPrefix},
        Situation{"the_least_loaded_beyond_it", {100, 1101, 200}, {0, 512, 0}, kAllUp, 0, ChoiceReason::kLoad},
        Situation{"of_equal_prefixes_the_least_loaded", {300, 200, 0}, {512, 512, 0}, kAllUp, 1, ChoiceReason::kPrefix},
        Situation{"none_that_is_down", {0, 900, 950}, {512, 0, 0}, {false, true, true}, 1, ChoiceReason::kLoad},
        Situation{"one_that_is_down_when_all_are",
                  {300, 200, 300},
                  {0, 512, 0},
                  {false, false, false},
                  1,
                  ChoiceReason::kFailing}),
    [](const auto& situation) { return situation.param.name; });

TEST_F(PeerChooserTest, equals_take_turns) {
  std::set<PeerId> chosen;
  for (int i = 0; i < 3; ++i) {
    const auto choice = choose();
    chosen.insert(choice->peer);
    chooser_.ended(*choice);  // idle again, every time
  }
  EXPECT_EQ(chosen.size(), 3u);
}

TEST_F(PeerChooserTest, does_not_choose_what_was_tried) {
  EXPECT_EQ(choose({}, kPrompt, {peers_[0], peers_[2]})->peer, peers_[1]);
  EXPECT_FALSE(choose({}, kPrompt, {peers_[0], peers_[1], peers_[2]}).has_value());
}

TEST_F(PeerChooserTest, prompts_of_another_salt_share_nothing) {
  chooser_.remember(peers_[2], prefix_blocks(prompt(kPrompt), "tenant a"));
  EXPECT_EQ(choose(prefix_blocks(prompt(kPrompt), "tenant b"))->known_tokens, 0);
  EXPECT_EQ(choose(prefix_blocks(prompt(kPrompt), "tenant a"))->known_tokens, kPrompt);
}

TEST_F(PeerChooserTest, a_peer_that_failed_or_was_down_may_have_lost_its_codes) {
  const auto blocks = prefix_blocks(prompt(kPrompt), "");
  chooser_.remember(peers_[0], blocks);
  chooser_.failed(peers_[0], now_);
  EXPECT_EQ(choose(blocks)->known_tokens, 0);
  chooser_.remember(peers_[1], blocks);
  chooser_.set_up(peers_[1], false);
  chooser_.set_up(peers_[1], true);
  EXPECT_EQ(choose(blocks)->known_tokens, 0);
}

TEST_F(PeerChooserTest, what_others_make_a_peer_compute_counts_for_a_while) {
  const auto choice = choose({}, 100, {peers_[1], peers_[2]});
  chooser_.reported(*choice, 5000, now_);
  chooser_.ended(*choice);
  for (int i = 0; i < 4; ++i) EXPECT_NE(choose()->peer, peers_[0]);
  now_ += seconds(6);
  EXPECT_EQ(choose()->peer, peers_[0]);
}

TEST_F(PeerChooserTest, failures_in_a_row_eject_and_a_success_between_them_does_not) {
  EXPECT_FALSE(chooser_.failed(peers_[0], now_));
  chooser_.succeeded(peers_[0], now_);
  EXPECT_FALSE(chooser_.failed(peers_[0], now_));
  EXPECT_TRUE(chooser_.failed(peers_[0], now_));
  EXPECT_TRUE(chooser_.state(peers_[0], now_)->ejected);
  for (int i = 0; i < 6; ++i) EXPECT_NE(choose()->peer, peers_[0]);
  EXPECT_EQ(choose({}, kPrompt, {peers_[1], peers_[2]})->reason, ChoiceReason::kFailing);
}

TEST_F(PeerChooserTest, ejections_grow_to_a_bound_and_shrink_with_good_times) {
  const auto fail_until_ejected = [&] {
    while (!chooser_.failed(peers_[0], now_)) {
    }
    const auto from = now_;
    while (chooser_.state(peers_[0], now_)->ejected) now_ += milliseconds(100);
    return now_ - from;
  };
  EXPECT_EQ(fail_until_ejected(), milliseconds(1000));
  EXPECT_EQ(fail_until_ejected(), milliseconds(2000));
  EXPECT_EQ(fail_until_ejected(), milliseconds(2500)) << "max_ejection";
  now_ += milliseconds(2000);  // makes up for two of them
  EXPECT_EQ(fail_until_ejected(), milliseconds(2000));
  now_ += seconds(100);
  EXPECT_EQ(fail_until_ejected(), milliseconds(1000));
}

TEST_F(PeerChooserTest, no_more_than_a_share_is_ejected_and_never_the_last) {
  const auto eject = [&](size_t peer) {
    chooser_.failed(peers_[peer], now_);
    return chooser_.failed(peers_[peer], now_);
  };
  EXPECT_TRUE(eject(0));
  EXPECT_TRUE(eject(1));
  EXPECT_FALSE(eject(2)) << "0.7 of three are two";
  EXPECT_EQ(choose()->peer, peers_[2]);
  PrefillOptions all = options_;
  all.outlier.max_ejected_share = 1;
  PeerChooser alone(all);
  const PeerId only = alone.add();
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(alone.failed(only, now_));
}

TEST_F(PeerChooserTest, a_draining_peer_gets_nothing_new_and_is_gone_after_its_last_request) {
  const auto running = choose({}, kPrompt, {peers_[1], peers_[2]});
  chooser_.drain(peers_[0]);
  for (int i = 0; i < 4; ++i) EXPECT_NE(choose()->peer, peers_[0]);
  EXPECT_FALSE(chooser_.gone(peers_[0]));
  chooser_.ended(*running);
  EXPECT_TRUE(chooser_.gone(peers_[0]));
  chooser_.failed(peers_[0], now_);  // late words about it harm nobody
  chooser_.ended(*running);
  chooser_.drain(peers_[1]);
  EXPECT_FALSE(chooser_.gone(peers_[1])) << "it has requests";
  chooser_.undrain(peers_[1]);
  EXPECT_EQ(choose({}, kPrompt, {peers_[2]})->peer, peers_[1]);
}

TEST(PrefixMemory, forgets_what_was_used_longest_ago) {
  PrefixMemory memory(3);
  const std::vector<uint64_t> first{1, 2}, second{3, 4};
  memory.add(7, first);
  memory.add(8, second);  // 1 gives way
  EXPECT_EQ(memory.size(), 3u);
  EXPECT_TRUE(memory.find(first).empty());
  EXPECT_EQ(memory.find(second), (std::map<PrefixMemory::Holder, size_t>{{8, 2}}));
  PrefixMemory none(0);
  none.add(7, first);
  EXPECT_TRUE(none.find(first).empty());
}

TEST(PrefixMemory, a_holder_has_a_beginning_as_far_as_it_has_every_block_of_it) {
  PrefixMemory memory(16);
  memory.add(1, std::vector<uint64_t>{10, 20, 30});
  memory.add(2, std::vector<uint64_t>{10});
  memory.add(3, std::vector<uint64_t>{20, 30});  // its first block was forgotten
  const auto found = memory.find(std::vector<uint64_t>{10, 20, 30, 40});
  EXPECT_EQ(found, (std::map<PrefixMemory::Holder, size_t>{{1, 3}, {2, 1}}));
}

TEST(PrefixBlocks, are_whole_and_depend_on_all_tokens_before) {
  std::vector<TokenId> tokens(200, 5);
  const auto blocks = prefix_blocks(tokens, "");
  EXPECT_EQ(blocks.size(), 3u);
  tokens[0] = 6;
  const auto others = prefix_blocks(tokens, "");
  for (size_t i = 0; i < 3; ++i) EXPECT_NE(blocks[i], others[i]);
  tokens[0] = 5;
  tokens[130] = 6;
  EXPECT_EQ(prefix_blocks(tokens, "")[1], blocks[1]);
  EXPECT_NE(prefix_blocks(tokens, "")[2], blocks[2]);
}

}  // namespace
}  // namespace scd
