#include "tools/scd/text_tokens.h"

#include <fstream>
#include <iterator>

#include "common/base/error.h"

namespace scd {

std::vector<TokenId> tokens_of_file(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file)) {
    throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  }
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
}

}  // namespace scd
