// Published tokenizers on real text, against ids that other software made: llama.cpp's vectors, and the hashes of what
// Hugging Face tokenizers 0.23.3 gives for whole books.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/sha256.h"
#include "common/tokenizer/streaming_detokenizer.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/test_data.h"

namespace scd {
namespace {

namespace fs = std::filesystem;

constexpr double kMinMegabytesPerSecond = 2;
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
constexpr bool kSpeedCounts = true;
#else
constexpr bool kSpeedCounts = false;
#endif

std::string read(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::optional<fs::path> smollm2() {
  const char* cache = std::getenv("SCD_CACHE");
  const char* home = std::getenv("HOME");
  if (cache == nullptr && home == nullptr) return std::nullopt;
  const fs::path root = cache != nullptr ? fs::path(cache) : fs::path(home) / ".cache/scd";
  const fs::path file = root / "models/SmolLM2-135M-Instruct/tokenizer.json";
  return fs::exists(file) ? std::optional(file) : std::nullopt;
}

std::optional<fs::path> tokenizer_file(const std::string& name) {
  if (name == "smollm2") return smollm2();
  if (name == "tinystories") return testing::test_data("models/tinystories_656K/tokenizer.json");
  return testing::test_data("tokenizers/" + name + ".tokenizer.json");
}

struct Vector {
  std::string text;
  std::vector<TokenId> ids;
};

std::vector<Vector> read_vectors(const fs::path& inputs, const fs::path& outputs) {
  static constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  std::vector<Vector> vectors;
  const std::string text = read(inputs);
  std::ifstream lines(outputs);
  // The last test is empty, and so is its line of ids, which has no end.
  for (size_t at = 0, end = 0; end < text.size(); at = end + kSeparator.size()) {
    end = std::min(text.find(kSeparator, at), text.size());
    Vector vector{text.substr(at, end - at), {}};
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    for (TokenId id = 0; numbers >> id;) vector.ids.push_back(id);
    vectors.push_back(std::move(vector));
  }
  return vectors;
}

class PublishedTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(PublishedTokenizer, GivesTheIdsOfAllVectors) {
  const auto file = tokenizer_file(GetParam());
  const auto inputs = testing::test_data("tokenizers/" + std::string(GetParam()) + ".inp");
  const auto outputs = testing::test_data("tokenizers/" + std::string(GetParam()) + ".out");
  if (!file || !inputs || !outputs) GTEST_SKIP() << "no tokenizer vectors for " << GetParam() << " in the test data";
  const Tokenizer tokenizer = Tokenizer::from_file(*file);
  const std::vector<Vector> vectors = read_vectors(*inputs, *outputs);
  ASSERT_EQ(vectors.size(), 47u);
  int right = 0;
  for (const Vector& vector : vectors) {
    const bool same = tokenizer.encode(vector.text, {.add_special_tokens = false}) == vector.ids;
    EXPECT_TRUE(same) << "text: " << vector.text;
    EXPECT_EQ(tokenizer.decode(vector.ids), vector.text);
    right += same ? 1 : 0;
  }
  std::cout << GetParam() << ": " << right << " of " << vectors.size() << " vectors\n";
}

INSTANTIATE_TEST_SUITE_P(Vectors, PublishedTokenizer, ::testing::Values("gpt2", "llama3", "qwen2"),
                         [](const auto& suite) { return std::string(suite.param); });

struct Book {
  const char* tokenizer;
  const char* text;
  size_t tokens;
  const char* digest;  // SHA-256 of the ids as 32-bit little-endian numbers
};

void PrintTo(const Book& book, std::ostream* stream) { *stream << book.tokenizer << " on " << book.text; }

constexpr const char* kWikitext = "text/wikitext2/test.txt";
constexpr const char* kShakespeare = "text/tinyshakespeare/input.txt";
constexpr const char* kOz = "text/gutenberg_wizard_of_oz/wizard_of_oz.txt";

constexpr Book kBooks[] = {
    {"gpt2", kWikitext, 295877, "b707897cad36e76a01d81962b984f94ba225c85ada8d207f1f0ff3faedb56381"},
    {"gpt2", kShakespeare, 338025, "0c00ab83dc7f46665805762aa7688fb7852f03f28c4a5d84061871e85ea7c815"},
    {"gpt2", kOz, 65960, "8d7bdaa44d274dfdeb07b01332ab262d88ba00165e391b00668d28e66c9dd841"},
    {"llama3", kWikitext, 299667, "deeebcf61b2ade85712db4c7cedaf3e176381a759721060bb0aad01a669221dd"},
    {"llama3", kShakespeare, 301768, "db543eccd29ae8eff96d8a99223f09f4ee46c578792f98718e1ef85ee1dc3cfd"},
    {"llama3", kOz, 61211, "748de01df3e3b20a6925dc3d5a722d13defc7ea044f0ec53e81d7aff43d94f30"},
    {"qwen2", kWikitext, 309009, "a5792cfc10d724d77ca375f6484ed9fd12be3b59349715bfe1f7904fbed73f81"},
    {"qwen2", kShakespeare, 301829, "3ade215e4c72289718114f53c0b72cc56d44f367aeeca69fa930c8beef967f64"},
    {"qwen2", kOz, 61290, "86382ddd91f9caeb751418c14890a21ba3b0a5e5e0b760ae83b9df371e83e016"},
    {"smollm2", kWikitext, 312144, "6ecb49cc3609ae7d45af51ecf05d3413f7671c6005fb9b75420854f1834e5ad8"},
    {"smollm2", kShakespeare, 341094, "48e900acd0e3537dce2baff773d0ba71fb54ce6c3890c24ddd5386963002b140"},
    {"smollm2", kOz, 64154, "8bbcb80bb8ea466af0a33cd08143a74637608b7ef14cc33094f4d407dc8f29c5"},
    {"tinystories", kWikitext, 514433, "6c190e305b0de964f08a5327e377c1c400b04c340173d0eaa1bc545fa1e10f52"},
    {"tinystories", kShakespeare, 501465, "608426215d926f162e2db0669d752e5e56bf0a801bc6c81f6545fd9380557dfb"},
    {"tinystories", kOz, 89827, "6eab3abfeadee668b5a6685d403e8f9f7f511c3a5e2bc732a813c074119cbf29"},
};

class TokenizerOnBook : public ::testing::TestWithParam<Book> {};

TEST_P(TokenizerOnBook, AgreesWithTheReferenceAndComesBackAsItWas) {
  const Book& book = GetParam();
  const auto file = tokenizer_file(book.tokenizer);
  const auto text_file = testing::test_data(book.text);
  if (!file || !text_file) GTEST_SKIP() << "not there: " << (file ? book.text : book.tokenizer);
  const Tokenizer tokenizer = Tokenizer::from_file(*file);
  const std::string text = read(*text_file);

  const std::clock_t start = std::clock();
  const std::vector<TokenId> ids = tokenizer.encode(text, {.add_special_tokens = false});
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const double megabytes_per_second = static_cast<double>(text.size()) / 1e6 / seconds;
  std::cout << book.tokenizer << " on " << book.text << ": " << megabytes_per_second << " MB/s\n";

  EXPECT_EQ(ids.size(), book.tokens);
  EXPECT_EQ(to_hex(sha256(std::as_bytes(std::span(ids)))), book.digest);
  const std::string name = book.tokenizer;
  // The tiny vocabulary lacks many characters of these books, and its model has no pre-tokenizer to cut words at.
  if (name == "tinystories") return;
  EXPECT_TRUE(tokenizer.decode(ids) == text);
  if (kSpeedCounts) {
    EXPECT_GE(megabytes_per_second, kMinMegabytesPerSecond);
  }
}

INSTANTIATE_TEST_SUITE_P(Books, TokenizerOnBook, ::testing::ValuesIn(kBooks), [](const auto& suite) {
  const std::string path = suite.param.text;
  const std::string file = path.substr(path.find('/') + 1);
  return std::string(suite.param.tokenizer) + "_" + file.substr(0, file.find('/'));
});

TEST(TinyStories, EncodesItsStartAsItsGoldenIds) {
  const auto file = tokenizer_file("tinystories");
  if (!file) GTEST_SKIP() << "no tinystories_656K in the test data";
  const Tokenizer tokenizer = Tokenizer::from_file(*file);
  EXPECT_EQ(tokenizer.encode("Once upon a time"), (std::vector<TokenId>{1, 80, 147, 201, 282, 57}));
  const std::string text = "Once upon a time, a little girl named Lily lived in a small house.";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text), true), text);
}

TEST(SmolLm2, EncodesItsGoldenPrompts) {
  const auto file = smollm2();
  const auto golden = testing::test_data("golden/smollm2/case.json");
  if (!file) GTEST_SKIP() << "no SmolLM2 tokenizer in the cache folder; scripts/demo fetches it";
  if (!golden) GTEST_SKIP() << "no golden/smollm2 in the test data";
  const Tokenizer tokenizer = Tokenizer::from_file(*file);
  const nlohmann::json cases = nlohmann::json::parse(read(*golden));
  for (const nlohmann::json& row : cases.at("rows")) {
    const std::string prompt = row.at("prompt");
    const std::vector<TokenId> ids = row.at("prompt_ids");
    EXPECT_EQ(tokenizer.encode(prompt), ids);
    EXPECT_EQ(tokenizer.decode(ids), prompt);
    StreamingDetokenizer detokenizer(tokenizer, {.continues_text = true});
    const std::vector<TokenId> greedy = row.at("greedy");
    std::string streamed;
    for (const TokenId id : greedy) streamed += detokenizer.push(id);
    EXPECT_EQ(streamed + detokenizer.flush(), tokenizer.decode(greedy));
  }
}

TEST(PublishedTokenizers, EncodeAMegabyteWithoutSpacesInReasonableTime) {
  const std::string run(1'000'000, 'a');
  for (const char* name : {"gpt2", "llama3", "qwen2", "tinystories"}) {
    const auto file = tokenizer_file(name);
    if (!file) GTEST_SKIP() << "not in the test data: " << name;
    const Tokenizer tokenizer = Tokenizer::from_file(*file);
    EXPECT_TRUE(tokenizer.decode(tokenizer.encode(run), true) == run) << name;
  }
}

}  // namespace
}  // namespace scd
