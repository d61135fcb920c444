#include "common/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/model/model_files.h"

namespace scd {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;
using testing::write_text;

class Safetensors : public ::testing::Test {
 protected:
  // A file of this header and so many bytes of data.
  void write(const std::string& header, size_t data_bytes) {
    const uint64_t length = header.size();
    write_text(path(), std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1'));
  }
  std::string error() const {
    return error_of([this] { SafetensorsFile file(path()); });
  }
  std::filesystem::path path() const { return folder_.path() / "model.safetensors"; }
  TemporaryFolder folder_;
};

TEST_F(Safetensors, ReadsWhatTheWriterWrote) {
  testing::write_tensors(
      path(), std::vector{testing::tensor_f32("b", {2, 1}, {1.0f, 2.0f}), testing::tensor_f32("a", {}, {3.0f})});
  const SafetensorsFile file(path());
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors().at("b").shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(file.tensors().at("a").bytes.size(), 4u);
}

TEST_F(Safetensors, MissingFileIsNotFound) {
  EXPECT_THAT(error(), AllOf(HasSubstr("NOT_FOUND"), HasSubstr("model.safetensors")));
}

TEST_F(Safetensors, EmptyFileIsTruncated) {
  write_text(path(), "");
  EXPECT_THAT(error(), HasSubstr("truncated"));
}

TEST_F(Safetensors, HeaderBeyondTheFileIsTruncated) {
  const uint64_t length = 5000;
  write_text(path(), std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
  EXPECT_THAT(error(), HasSubstr("truncated: the header takes 5000 bytes"));
}

TEST_F(Safetensors, AbsurdHeaderLengthIsRefusedBeforeItIsRead) {
  write_text(path(), std::string(64, '\xff'));
  EXPECT_THAT(error(), HasSubstr("not a safetensors file"));
}

TEST_F(Safetensors, TruncatedDataNamesTheTensor) {
  write(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 12);
  EXPECT_THAT(error(), AllOf(HasSubstr("truncated: tensor `a` ends at byte 16"), HasSubstr("holds 12")));
}

TEST_F(Safetensors, ShapeThatDoesNotFillItsBytesIsRefused) {
  write(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})", 16);
  EXPECT_THAT(error(), HasSubstr("tensor `a`: F32 [3] takes 12 bytes, its data_offsets span 16"));
}

TEST_F(Safetensors, OverlapGapAndTailAreRefused) {
  write(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}})",
        12);
  EXPECT_THAT(error(), HasSubstr("tensor `b` begins at byte 4 of the data, inside another tensor"));
  write(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}})",
        12);
  EXPECT_THAT(error(), HasSubstr("leaving a gap"));
  write(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 6);
  EXPECT_THAT(error(), HasSubstr("2 bytes follow the last tensor"));
}

TEST_F(Safetensors, OffsetsThatRunBackwardsAreRefused) {
  write(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[8,4]}})", 8);
  EXPECT_THAT(error(), HasSubstr("run backwards"));
}

TEST_F(Safetensors, OverflowingShapeIsRefused) {
  write(R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8);
  EXPECT_THAT(error(), HasSubstr("too large"));
}

TEST_F(Safetensors, UnknownDtypeNamesTheTensor) {
  write(R"({"a":{"dtype":"Q4","shape":[4],"data_offsets":[0,4]}})", 4);
  EXPECT_THAT(error(), HasSubstr("tensor `a`: unknown dtype Q4"));
}

TEST_F(Safetensors, NameListedTwiceIsRefused) {
  write(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
        4);
  EXPECT_THAT(error(), HasSubstr("`a` is listed twice"));
}

TEST_F(Safetensors, BrokenHeadersAreRefused) {
  for (const char* header :
       {"", "{", "[]", "\xff\xfe", R"({"a":3})", R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
        R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})"}) {
    write(header, 4);
    EXPECT_THAT(error(), HasSubstr("DATA_LOSS")) << header;
  }
}

}  // namespace
}  // namespace scd
