#include "prefill_server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "common/base/error.h"
#include "common/config/config.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kConfigs = std::filesystem::path(SCD_SOURCE_DIR) / "configs";

std::string refusal(PrefillConfig config) {
  try {
    check_config(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PrefillConfig, TheShippedFileIsTheDumpOfTheDefaults) {
  std::ifstream file(kConfigs / "prefill.yaml");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), dump_config(PrefillConfig())) << "write it anew: prefill_server --dump-config";
}

TEST(PrefillConfig, TheOneBoxFileNeedsOnlyAModel) {
  PrefillConfig config;
  load_config(config, {kConfigs / "one_box" / "prefill.yaml", {"model.directory=somewhere"}});
  EXPECT_EQ(refusal(config), "accepted");
}

TEST(PrefillConfig, KeysThatDoNotGoTogetherAreNamed) {
  PrefillConfig config;
  EXPECT_THAT(refusal(config), HasSubstr("model.directory is not set"));
  config.model.directory = "x";
  config.codec.chunk_tokens = 100;
  EXPECT_THAT(refusal(config), HasSubstr("codec.chunk_tokens is 100; it must be a multiple of 16"));
  config.codec.chunk_tokens = 128;
  config.limits.max_requests = 1000;
  EXPECT_THAT(refusal(config), HasSubstr("limits.max_requests x limits.max_credit_messages is 64000"));
  config.limits.max_requests = 64;
  config.code_cache.redis.cluster = true;
  for (const char* server : {"unix:/run/redis.sock", "redis://cache:6379/1"}) {
    config.code_cache.redis.servers = {server};
    EXPECT_THAT(refusal(config), HasSubstr(std::string("code_cache.redis.servers: '") + server)) << server;
  }
  config.code_cache.redis.servers = {"redis://cache:6379"};
  EXPECT_EQ(refusal(config), "accepted");
}

TEST(PrefillConfig, BytesInFlightAreSetAndBounded) {
  PrefillConfig config;
  load_config(config, {{}, {"model.directory=x", "transport.bytes_in_flight=65536"}});
  EXPECT_EQ(config.transport.bytes_in_flight, 65536U);
  EXPECT_EQ(refusal(config), "accepted");
  config.transport.bytes_in_flight = 100;
  EXPECT_EQ(refusal(config), "transport: bytes_in_flight is 100; at least 4096 are needed");
  EXPECT_THROW(load_config(config, {{}, {"transport.bytes_in_flight=100"}}), Error);
}

}  // namespace
}  // namespace scd
