#include "tools/scd/tokenize.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/tokenizer/tokenizer.h"

namespace scd {
namespace {

constexpr int kBenchRounds = 5;

struct TokenizeOptions {
  std::string model;
  bool decode = false;
  bool no_special = false;
  std::string bench;
};

Tokenizer load(const std::filesystem::path& model) {
  return Tokenizer::from_file(std::filesystem::is_directory(model) ? model / "tokenizer.json" : model);
}

std::string read_all(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

// Ids with white space or commas between them, as this command and `scd logits --ids` write and read them.
std::vector<TokenId> parse_ids(std::string_view text) {
  static constexpr std::string_view kSeparators = " \t\r\n,";
  std::vector<TokenId> ids;
  for (size_t at = text.find_first_not_of(kSeparators); at != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kSeparators, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    TokenId id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + std::string(word) + "' at byte " + std::to_string(at) + " of the input is not a token id");
    }
    ids.push_back(id);
    at = text.find_first_not_of(kSeparators, end);
  }
  return ids;
}

void require_in_vocabulary(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  for (const TokenId id : ids) {
    if (id >= 0 && static_cast<size_t>(id) < tokenizer.vocab_size()) continue;
    throw Error(ErrorCode::kInvalidArgument, "token id " + std::to_string(id) +
                                                 " is outside the vocabulary: expected ids of 0 to " +
                                                 std::to_string(tokenizer.vocab_size() - 1) + " (" +
                                                 std::to_string(tokenizer.vocab_size()) + " tokens)");
  }
}

// The ids without what encoding puts around every text (BOS, EOS), where that is there.
std::span<const TokenId> without_frame(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  const auto framed = tokenizer.encode("a");
  const auto bare = tokenizer.encode("a", {.add_special_tokens = false});
  const auto text = std::ranges::search(framed, bare);
  const std::span before(framed.begin(), text.begin()), after(text.end(), framed.end());
  if (ids.size() < before.size() + after.size()) return ids;
  if (!std::ranges::equal(ids.first(before.size()), before) || !std::ranges::equal(ids.last(after.size()), after)) {
    return ids;
  }
  return ids.subspan(before.size(), ids.size() - before.size() - after.size());
}

void bench(const Tokenizer& tokenizer, const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorCode::kNotFound, file + ": cannot be opened");
  const std::string text = read_all(stream);
  const auto best_of = [](const auto& body) {
    double best = 1e300;
    for (int round = 0; round < kBenchRounds; ++round) {
      const auto start = std::chrono::steady_clock::now();
      body();
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  };
  std::vector<TokenId> ids;
  std::string decoded;
  const double encode_seconds = best_of([&] { ids = tokenizer.encode(text); });
  const double decode_seconds = best_of([&] { decoded = tokenizer.decode(ids); });
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::cout << std::fixed << std::setprecision(1) << "bytes " << text.size() << "  tokens " << ids.size() << "  encode "
            << megabytes / encode_seconds << " MB/s  decode "
            << static_cast<double>(decoded.size()) / 1e6 / decode_seconds << " MB/s  (one thread, best of "
            << kBenchRounds << ")\n";
}

void tokenize(const TokenizeOptions& options) {
  const Tokenizer tokenizer = load(options.model);
  if (!options.bench.empty()) return bench(tokenizer, options.bench);
  const std::string input = read_all(std::cin);
  if (options.decode) {
    const auto ids = parse_ids(input);
    require_in_vocabulary(tokenizer, ids);
    std::cout << tokenizer.decode(without_frame(tokenizer, ids), options.no_special) << std::flush;
    return;
  }
  std::string line;
  for (const TokenId id : tokenizer.encode(input, {.add_special_tokens = !options.no_special})) {
    if (!line.empty()) line.push_back(' ');
    line.append(std::to_string(id));
  }
  std::cout << line << std::endl;
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  const auto options = std::make_shared<TokenizeOptions>();  // shared: CLI11 copies the callback
  CLI::App* command = app.add_subcommand("tokenize", "Text on stdin to token ids on one line, or back");
  command->footer(
      "The input is taken as it is, a final newline included: printf 'Hello' | scd tokenize --model DIR\n"
      "Ids may be separated by spaces, commas or newlines: scd tokenize --model DIR | scd tokenize --model DIR "
      "--decode");
  command->add_option("--model", options->model, "Checkpoint directory with a tokenizer.json, or that file")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_flag("--decode", options->decode,
                    "Read ids and write their text, without what encoding puts around every text (BOS)");
  command->add_flag(
      "--no-special", options->no_special,
      "Encoding: do not add what the tokenizer puts around a text (BOS); decoding: leave special tokens out");
  command->add_option("--bench", options->bench, "Print how fast FILE is encoded and decoded, and nothing else")
      ->type_name("FILE")
      ->check(CLI::ExistingFile);
  command->callback([options] { tokenize(*options); });
}

}  // namespace scd
