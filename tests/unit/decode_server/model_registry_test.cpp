#include "decode_server/model_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

class ModelRegistryTest : public ::testing::Test {
 protected:
  std::shared_ptr<ServedModel> make(const std::string& name) {
    return testing::served_model({config_, model_, tokenizer_, name, 8}, prefixes_);
  }
  DecodeConfig config_;
  ModelConfig model_;
  Tokenizer tokenizer_ = testing::byte_tokenizer();
  PagePool pages_{8, kPageTokens};
  PrefixCache prefixes_{pages_, 8};
};

TEST_F(ModelRegistryTest, finds_by_name_and_the_first_without_one) {
  ModelRegistry models({make("first"), make("second")});
  EXPECT_EQ(models.find("second").value()->name(), "second");
  EXPECT_EQ(models.find("").value()->name(), "first");
  const auto unknown = models.find("third");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.failure().code, ErrorCode::kNotFound);
  EXPECT_EQ(unknown.failure().message, "model: 'third' is not served here; this server has 'first', 'second'");
}

TEST_F(ModelRegistryTest, a_name_is_taken_unless_it_is_to_be_replaced) {
  ModelRegistry models({make("first")});
  const auto before = models.find("first").value();
  const auto refused = models.add(make("first"), false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(models.find("first").value(), before);
  ASSERT_TRUE(models.add(make("first"), true).ok());
  EXPECT_NE(models.find("first").value(), before);
  EXPECT_NE(models.find("first").value()->prefixes.id(), before->prefixes.id());
  EXPECT_EQ(models.list().size(), 1u);
}

TEST_F(ModelRegistryTest, there_is_a_most_of_them) {
  ModelRegistry models({make("first")});
  for (size_t i = 1; i < ModelRegistry::kMostModels; ++i) ASSERT_TRUE(models.add(make(std::to_string(i)), false).ok());
  EXPECT_EQ(models.add(make("one more"), false).failure().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(models.add(make("first"), true).ok());
}

TEST_F(ModelRegistryTest, what_was_removed_is_not_the_default_by_another_name) {
  ModelRegistry models({make("first"), make("second")});
  const auto held = models.find("first").value();
  ASSERT_TRUE(models.remove("first").ok());
  EXPECT_EQ(models.find("").failure().code, ErrorCode::kNotFound);
  EXPECT_EQ(models.remove("first").failure().code, ErrorCode::kNotFound);
  EXPECT_EQ(held.use_count(), 1);  // whoever began with it keeps it
  ASSERT_TRUE(models.remove("second").ok());
  EXPECT_THAT(models.find("second").failure().message, HasSubstr("none at present"));
}

TEST_F(ModelRegistryTest, kept_pages_go_with_their_model) {
  ModelRegistry models({make("first"), make("second")});
  const std::vector<TokenId> tokens(32, 7);
  const std::string salt;
  const std::vector<PrefixCache::Run> exact{{0, {}}};
  for (const auto& model : models.list()) {
    PageTable pages = pages_.make_table();
    std::move(pages.reserve(32)).value_or_throw();
    prefixes_.insert({.salt = salt, .tokens = tokens, .runs = exact, .space = model->prefixes.id()}, pages);
  }
  EXPECT_EQ(prefixes_.counters().pages, 4);
  auto held = models.find("first").value();
  ASSERT_TRUE(models.remove("first").ok());
  EXPECT_EQ(prefixes_.counters().pages, 4);
  held.reset();
  EXPECT_EQ(prefixes_.counters().pages, 2);
  PageTable pages = pages_.make_table();
  const uint64_t second = models.find("second").value()->prefixes.id();
  EXPECT_EQ(prefixes_.find({.salt = salt, .tokens = tokens, .origin = {}, .space = second}, pages).tokens, 32);
}

}  // namespace
}  // namespace scd
