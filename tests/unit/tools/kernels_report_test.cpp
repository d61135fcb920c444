#include "tools/scd/kernels_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/scd/temporary_folder.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const std::vector<MeasuredOp> kOps{{"attention of 64 tokens", 1.2, 300, "tflop_per_s", 600},
                                   {"linear qkv, 64 rows", 0.5, 400, "tflop_per_s", 600},
                                   {"rope", 0.1, 2000, "gbyte_per_s", 2500}};

const TorchTimes kTorch{.version = "2.11",
                        .problem = {},
                        .rows = {{"attention of 64 tokens", "FLASH_ATTENTION", 1.6},
                                 {"attention of 64 tokens", "CUDNN_ATTENTION", 0.8},
                                 {"linear qkv, 64 rows", "", 0.25},
                                 {"softmax", "", 0.125}}};

std::string printed(const TextTable& table) {
  std::ostringstream out;
  table.print(out);
  return out.str();
}

TEST(KernelsReport, PutsTheSoonestOfTorchsKernelsBesideAnOp) {
  EXPECT_EQ(printed(kernels_table(kOps, kTorch)),
            "op                          us  reached  unit         share of the limit  torch us  scd / torch  "
            "kernel of torch\n"
            "----------------------  ------  -------  -----------  ------------------  --------  -----------  "
            "----------------------------------------\n"
            "attention of 64 tokens  1200.0    300.0  tflop_per_s              50.0 %     800.0         1.50  "
            "CUDNN_ATTENTION (FLASH_ATTENTION 1600.0)\n"
            "linear qkv, 64 rows      500.0    400.0  tflop_per_s              66.7 %     250.0         2.00\n"
            "rope                     100.0   2000.0  gbyte_per_s              80.0 %         -            -\n"
            "softmax                      -        -                                -     125.0            -\n");
}

TEST(KernelsReport, RowsHoldEveryTimeOfTorch) {
  const auto rows = kernels_rows(kOps, kTorch);
  ASSERT_THAT(rows, SizeIs(4));
  EXPECT_EQ(rows[0], nlohmann::ordered_json::parse(R"({
    "op": "attention of 64 tokens", "total_ms": 1.2, "tflop_per_s": 300.0, "limit": 600.0, "limit_share": 0.5,
    "torch": "2.11", "torch_ms": 0.8, "ratio_to_torch": 1.4999999999999998, "torch_kernel": "CUDNN_ATTENTION",
    "torch_kernels": {"CUDNN_ATTENTION": 0.8, "FLASH_ATTENTION": 1.6}})"));
  EXPECT_EQ(rows[1]["ratio_to_torch"], 2.0);
  EXPECT_TRUE(rows[1]["torch_kernel"].is_null());
  EXPECT_EQ(rows[2]["op"], "rope");
  EXPECT_TRUE(rows[2]["torch_ms"].is_null() && rows[2]["ratio_to_torch"].is_null());
  EXPECT_EQ(rows[3]["op"], "softmax");
  EXPECT_EQ(rows[3]["torch_ms"], 0.125);
  EXPECT_TRUE(rows[3]["total_ms"].is_null() && rows[3]["ratio_to_torch"].is_null());
}

TEST(KernelsReport, WithoutTorchThereAreNoColumnsOfIt) {
  const TorchTimes none{.version = {}, .problem = "python3: no torch", .rows = {}};
  EXPECT_THAT(printed(kernels_table(kOps, none)), Not(HasSubstr("torch")));
  const auto rows = kernels_rows(kOps, none);
  ASSERT_THAT(rows, SizeIs(3));
  EXPECT_FALSE(rows[0].contains("torch_ms"));
}

// A python3 of its own in PATH.
class TorchScript : public ::testing::Test {
 protected:
  ~TorchScript() override { setenv("PATH", path_.c_str(), 1); }

  void python(const std::string& body) {
    const auto file = folder_.path() / "python3";
    std::ofstream(file) << "#!/bin/sh\n" << body;
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
    only_here();
  }
  void only_here() { setenv("PATH", folder_.path().c_str(), 1); }

 private:
  const std::string path_ = std::getenv("PATH");
  const TemporaryFolder folder_{"scd-torch-test"};
};

TEST_F(TorchScript, GetsTheShapeAndItsRowsComeBack) {
  python(R"sh(
read first < "$1"
case "$first" in *scd*) ;; *) exit 9 ;; esac
[ "$2" = '{"tokens":64}' ] || exit 8
echo '{"torch": "2.11"}'
echo '{"op": "rope", "kernel": null, "ms": 0.5}'
echo '{"op": "attention", "kernel": "CUDNN_ATTENTION", "ms": 2}'
)sh");
  const TorchTimes times = torch_times({{"tokens", 64}});
  EXPECT_EQ(times.problem, "");
  EXPECT_EQ(times.version, "2.11");
  ASSERT_THAT(times.rows, SizeIs(2));
  EXPECT_EQ(times.rows[0].op, "rope");
  EXPECT_EQ(times.rows[0].kernel, "");
  EXPECT_EQ(times.rows[0].ms, 0.5);
  EXPECT_EQ(times.rows[1].kernel, "CUDNN_ATTENTION");
}

TEST_F(TorchScript, WhatCameBeforeAFailureIsKept) {
  python(R"sh(echo '{"torch": "2.11"}'; echo '{"op": "rope", "kernel": null, "ms": 0.5}'; exit 3)sh");
  const TorchTimes times = torch_times({});
  EXPECT_EQ(times.problem, "python3 ended with status 3");
  EXPECT_THAT(times.rows, SizeIs(1));
}

TEST_F(TorchScript, ASignalIsTold) {
  python("kill -9 $$");
  EXPECT_EQ(torch_times({}).problem, "a signal ended python3");
}

TEST_F(TorchScript, WithoutTorchItSaysSo) {
  python(R"sh(echo '{"missing": "python3: No module named torch"}')sh");
  const TorchTimes times = torch_times({});
  EXPECT_EQ(times.problem, "python3: No module named torch");
  EXPECT_THAT(times.rows, IsEmpty());
}

TEST_F(TorchScript, WithoutPythonItSaysSo) {
  only_here();
  EXPECT_THAT(torch_times({}).problem, HasSubstr("starting python3: No such file"));
}

TEST_F(TorchScript, LinesThatAreNoRowsAreNone) {
  python(R"sh(echo 'hello'; echo '{"op": "rope", "ms": "soon"}'; echo '[1]')sh");
  const TorchTimes times = torch_times({});
  EXPECT_THAT(times.problem, HasSubstr("none of the script's"));
  EXPECT_THAT(times.rows, IsEmpty());
}

}  // namespace
}  // namespace scd
