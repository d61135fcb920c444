#include "common/tokenizer/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <utility>

#include "common/base/error.h"
#include "common/tokenizer/added_tokens.h"
#include "common/tokenizer/bpe.h"
#include "common/tokenizer/decoder.h"
#include "common/tokenizer/json_field.h"
#include "common/tokenizer/normalizer.h"
#include "common/tokenizer/post_processor.h"
#include "common/tokenizer/pre_tokenizer.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

constexpr uintmax_t kMaxFileBytes = 512u << 20;
constexpr size_t kMaxTextBytes = 512u << 20;  // positions within a normalized text stay below 2^31

std::string read_file(const std::filesystem::path& path) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) {
    throw Error(ErrorCode::kNotFound, path.string() + ": no such file; expected a tokenizer.json");
  }
  const uintmax_t bytes = std::filesystem::file_size(path, failed);
  if (failed || bytes > kMaxFileBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                path.string() + ": must be smaller than " + std::to_string(kMaxFileBytes >> 20) + " MiB");
  }
  std::string text(static_cast<size_t>(bytes), '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(text.data(), static_cast<std::streamsize>(bytes))) {
    throw Error(ErrorCode::kPermissionDenied, path.string() + ": cannot be read");
  }
  return text;
}

}  // namespace

struct Tokenizer::Parts {
  Parts(const JsonField& root, Sha256Digest file_digest) : fingerprint(file_digest), bpe(root.at("model")) {
    if (const auto field = root.find("normalizer")) normalizer = read_normalizer(*field);
    if (const auto field = root.find("pre_tokenizer")) pre_tokenizer = read_pre_tokenizer(*field);
    if (const auto field = root.find("added_tokens")) added = AddedTokens(*field, bpe.vocabulary(), normalizer.get());
    vocab_size = std::max(bpe.vocabulary().size(), added.size());
    for (TokenId id = 0; static_cast<size_t>(id) < vocab_size; ++id) longest = std::max(longest, written(id).size());
    if (const auto field = root.find("post_processor")) affixes = read_post_processor(*field, vocab_size);
    if (const auto field = root.find("decoder")) decoder = DecodeChain(*field);
  }

  // Text between added tokens of the first kind; `at_start`: it is the start of the whole text.
  struct Call {
    bool parse_special;
    PieceList list;
    Bpe::Session session;
    std::vector<TokenId> ids;
  };
  void encode_raw(std::string_view text, bool at_start, Call& call) const;
  std::string_view written(TokenId id) const;

  Sha256Digest fingerprint;
  Bpe bpe;
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  AddedTokens added;
  size_t vocab_size = 0;
  size_t longest = 1;  // token, bytes
  AffixIds affixes;
  DecodeChain decoder;
};

void Tokenizer::Parts::encode_raw(std::string_view text, bool at_start, Call& call) const {
  std::string& normalized = call.list.storage.emplace_back(text);
  if (normalizer) normalizer->apply(normalized);
  for (const Segment& segment : added.split_normalized(normalized, call.parse_special)) {
    if (segment.token) {
      call.ids.push_back(*segment.token);
      continue;
    }
    call.list.pieces.assign(1, {segment.text, at_start && segment.text.data() == normalized.data()});
    if (pre_tokenizer) pre_tokenizer->apply(call.list);
    for (const Piece& piece : call.list.pieces) bpe.encode(piece.text, call.session, call.ids);
  }
}

std::string_view Tokenizer::Parts::written(TokenId id) const {
  const std::string_view token = bpe.vocabulary().token(id);
  if (!token.empty()) return token;
  const AddedToken* found = added.find(id);
  return found != nullptr ? std::string_view(found->content) : std::string_view();
}

Tokenizer Tokenizer::from_file(const std::filesystem::path& tokenizer_json) {
  const std::string text = read_file(tokenizer_json);
  const JsonText file(text, tokenizer_json.string());
  return Tokenizer(std::make_unique<const Parts>(file.root(), sha256(text)));
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::kInvalidArgument, "text of " + std::to_string(text.size()) + " bytes; at most " +
                                                 std::to_string(kMaxTextBytes) + " can be tokenised at once");
  }
  if (const auto invalid = first_invalid_utf8(text)) {
    throw Error(ErrorCode::kInvalidArgument, "text is not valid UTF-8 at byte " + std::to_string(*invalid));
  }
  const AffixIds& affixes = parts_->affixes;
  Parts::Call call{options.parse_special, {}, {}, {}};
  if (options.add_special_tokens) call.ids = affixes.before;
  for (const Segment& segment : parts_->added.split_raw(text, options.parse_special)) {
    if (segment.token) {
      call.ids.push_back(*segment.token);
    } else {
      parts_->encode_raw(segment.text, segment.text.data() == text.data(), call);
    }
  }
  if (options.add_special_tokens) call.ids.insert(call.ids.end(), affixes.behind.begin(), affixes.behind.end());
  return std::move(call.ids);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  DecodeChain::State state;
  std::string text;
  for (const TokenId id : ids) {
    const std::string_view token = id_to_token(id);
    if (token.empty() || (skip_special && is_special(id))) continue;
    parts_->decoder.push(token, state, text);
  }
  parts_->decoder.finish(state, text);
  return text;
}

size_t Tokenizer::vocab_size() const { return parts_->vocab_size; }

size_t Tokenizer::longest_token_bytes() const { return parts_->longest; }

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  if (const AddedToken* added = parts_->added.find(token)) return added->id;
  return parts_->bpe.vocabulary().find(token);
}

std::string_view Tokenizer::id_to_token(TokenId id) const { return parts_->written(id); }

bool Tokenizer::is_special(TokenId id) const {
  const AddedToken* added = parts_->added.find(id);
  return added != nullptr && added->special;
}

const Sha256Digest& Tokenizer::fingerprint() const { return parts_->fingerprint; }

const DecodeChain& Tokenizer::decode_chain() const { return parts_->decoder; }

}  // namespace scd
