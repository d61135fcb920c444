#include "decode_server/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "common/base/error.h"
#include "common/config/config.h"

namespace scd {
namespace {

std::string read(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(DecodeConfig, the_file_in_configs_is_the_dump_of_the_defaults) {
  EXPECT_EQ(read(std::filesystem::path(SCD_SOURCE_DIR) / "configs/decode.yaml"), dump_config(DecodeConfig()))
      << "write it again: decode_server --dump-config > configs/decode.yaml";
}

TEST(DecodeConfig, the_one_box_file_is_read_and_needs_a_model_only) {
  DecodeConfig config;
  load_config(config, {.file = std::filesystem::path(SCD_SOURCE_DIR) / "configs/one_box/decode.yaml",
                       .overrides = {"model.directory=/some/where"}});
  EXPECT_NO_THROW(check_config(config));
  EXPECT_EQ(config.limits.max_running, 16);
}

// Codes come from prefill servers: a cap on what this side sends would cap nothing.
TEST(DecodeConfig, has_no_link) {
  DecodeConfig config;
  try {
    load_config(config, {.file = {}, .overrides = {"link.bandwidth_gbps=0.1"}});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("unknown key 'link'"), std::string::npos) << error.what();
  }
}

void expect_refused(const DecodeConfig& config, const std::string& names) {
  try {
    check_config(config);
    FAIL() << "accepted; should name " << names;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find(names), std::string::npos) << error.what();
  }
}

TEST(DecodeConfig, models_have_names_of_their_own_and_a_base_without_adapter) {
  DecodeConfig config;
  config.model.directory = "/some/where";
  config.models = {{.name = "a"}, {.name = "b", .directory = {}, .adapter = "x", .artifact = "y"}};
  EXPECT_NO_THROW(check_config(config));
  config.codec.mode = CodecMode::kRd;
  expect_refused(config, "codec.artifact");
  config.models[0].artifact = "y";
  EXPECT_NO_THROW(check_config(config));
  config.models[1].name = "a";
  expect_refused(config, "models[1].name: 'a'");
  config.models[1].name = "";
  expect_refused(config, "models[1].name");
  config.models[1].name = "b";
  config.model.adapter = "x";
  expect_refused(config, "model.adapter");
  config.models.clear();
  config.codec.artifact = "y";
  EXPECT_NO_THROW(check_config(config));
  config.model_admin = true;
  expect_refused(config, "model.adapter");
}

TEST(DecodeConfig, refuses_keys_that_do_not_go_together) {
  DecodeConfig config;
  expect_refused(config, "model.directory");
  config.model.directory = "/some/where";
  EXPECT_NO_THROW(check_config(config));
  config.codec.mode = CodecMode::kScd;
  expect_refused(config, "codec.artifact");
  config.codec.mode = CodecMode::kRaw;
  config.transport.slots = 7;
  expect_refused(config, "transport.slots");
  config.transport.slots = 8;
  EXPECT_NO_THROW(check_config(config));
  config.prefill.hedge_after = std::chrono::milliseconds(50);
  expect_refused(config, "prefill.hedge_after_ms");
  config.prefill.credit_messages = 4;
  EXPECT_NO_THROW(check_config(config));
  config.prefill.hedge_after = config.prefill.silence_timeout;
  expect_refused(config, "prefill.silence_timeout_ms");
  config.prefill.hedge_after = {};
  config.prefill.outlier.ejection = config.prefill.outlier.max_ejection + std::chrono::milliseconds(1);
  expect_refused(config, "prefill.outlier.max_ejection_ms");
  config.prefill.outlier = {};
  config.codec.sinks = 4;
  expect_refused(config, "codec.sinks");
  config.codec.sinks = 16;
  config.grpc.listen = "127.0.0.1:99999";
  expect_refused(config, "grpc.listen");
  config.grpc.listen = "[::1]:0";
  config.metrics.listen = "9464";
  expect_refused(config, "metrics.listen: '9464' is not host:port");
  config.metrics.listen = "";
  config.prefill.endpoints = {"foo"};
  expect_refused(config, "prefill.endpoints");
  config.prefill.endpoints.clear();
  config.fallback.local_prefill = false;
  expect_refused(config, "prefill.endpoints");
}

}  // namespace
}  // namespace scd
