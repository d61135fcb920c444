#include "common/tokenizer/decoder.h"

#include <charconv>
#include <memory>
#include <utility>

#include "common/tokenizer/byte_level.h"
#include "common/tokenizer/replace.h"

namespace scd {
namespace {

constexpr int kMaxDepth = 8;
constexpr int64_t kMaxStrip = 1 << 20;

// The byte-level characters of a token as bytes; a token with any other character (a special one) is its own bytes.
std::string byte_level_bytes(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const auto byte = byte_of_character(next_character(token, at));
    if (!byte) return std::string(token);
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

// "<0x0A>" as its byte; any other token as it is.
std::string byte_fallback_bytes(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::string(token);
  unsigned byte = 0;
  const char* end = token.data() + 5;
  const auto parsed = std::from_chars(token.data() + 3, end, byte, 16);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::string(token);
  return std::string(1, static_cast<char>(byte));
}

void strip_token(std::string& token, const std::string& content, size_t start, size_t stop) {
  for (; start > 0 && token.starts_with(content); --start) token.erase(0, content.size());
  for (; stop > 0 && token.ends_with(content); --stop) token.erase(token.size() - content.size());
}

// Every mark becomes a space; those of the first token vanish where encoding had put one there.
void unmark_spaces(std::string& token, const std::string& mark, bool drop) {
  std::string out;
  size_t at = 0;
  while (at < token.size()) {
    const size_t found = token.find(mark, at);
    out.append(token, at, found - at);
    if (found == std::string::npos) break;
    if (!drop) out.push_back(' ');
    at = found + mark.size();
  }
  token = std::move(out);
}

}  // namespace

DecodeChain::DecodeChain(const JsonField& field) : joins_with_space_(false) { add(field, 0); }

void DecodeChain::add(const JsonField& field, int depth) {
  const std::string& type = field.at("type").string();
  const auto rewrites_tokens = [&] {
    if (fused_ || bytes_ != Bytes::kText) field.refuse("decoder '" + type + "' behind ByteLevel, ByteFallback or Fuse");
  };
  if (type == "Sequence") {
    field.allow_only({"type", "decoders"});
    if (depth == kMaxDepth) field.refuse("a Sequence this deep");
    field.at("decoders").for_each([&](const JsonField& step) { add(step, depth + 1); });
  } else if (type == "Replace") {
    rewrites_tokens();
    rules_.push_back(
        [replace = std::make_shared<const Replace>(field)](std::string& token, bool) { replace->apply(token); });
  } else if (type == "Metaspace") {
    rewrites_tokens();
    field.allow_only({"type", "replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"});
    field.at("replacement").character();
    const auto scheme = field.find("prepend_scheme");
    const bool prefixed = scheme ? scheme->string() != "never" : field.boolean_or("add_prefix_space", true);
    rules_.push_back([mark = field.at("replacement").string(), prefixed](std::string& token, bool is_first) {
      unmark_spaces(token, mark, is_first && prefixed);
    });
  } else if (type == "ByteFallback") {
    rewrites_tokens();
    field.allow_only({"type"});
    bytes_ = Bytes::kByteFallback;
  } else if (type == "ByteLevel") {
    rewrites_tokens();
    field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    bytes_ = Bytes::kByteLevel;
    fused_ = true;  // bytes know no tokens
  } else if (type == "Fuse") {
    field.allow_only({"type"});
    fused_ = true;
  } else if (type == "Strip") {
    add_strip(field);
  } else {
    field.refuse("decoder '" + type + "'");
  }
}

void DecodeChain::add_strip(const JsonField& field) {
  field.allow_only({"type", "content", "start", "stop"});
  field.at("content").character();
  const Strip strip{field.at("content").string(), static_cast<size_t>(field.at("start").integer(0, kMaxStrip)),
                    static_cast<size_t>(field.at("stop").integer(0, kMaxStrip))};
  if (fused_) {
    if (strip_) field.refuse("a second Strip behind Fuse");
    strip_ = strip;
    return;
  }
  if (bytes_ != Bytes::kText) field.refuse("decoder 'Strip' between ByteFallback and Fuse");
  rules_.push_back([strip](std::string& token, bool) { strip_token(token, strip.content, strip.start, strip.stop); });
}

void DecodeChain::push(std::string_view token, State& state, std::string& out) const {
  std::string piece(token);
  for (const Rule& rule : rules_) rule(piece, state.is_first);
  if (bytes_ == Bytes::kByteLevel) piece = byte_level_bytes(piece);
  if (bytes_ == Bytes::kByteFallback) piece = byte_fallback_bytes(piece);
  if (joins_with_space_ && !state.is_first) piece.insert(piece.begin(), ' ');
  state.is_first = false;
  if (!strip_) return state.assembler.push(piece, out);
  std::string text;
  state.assembler.push(piece, text);
  strip_and_append(text, state, out);
}

void DecodeChain::finish(State& state, std::string& out) const {
  std::string text;
  state.assembler.flush(text);
  if (!strip_) {
    out.append(text);
    return;
  }
  strip_and_append(text, state, out);
  strip_token(state.held_back, strip_->content, 0, strip_->stop);
  out.append(state.held_back);
  state.held_back.clear();
}

void DecodeChain::strip_and_append(std::string_view text, State& state, std::string& out) const {
  while (!state.front_done && !text.empty()) {
    state.front_done = state.stripped_front == strip_->start || !text.starts_with(strip_->content);
    if (state.front_done) break;
    text.remove_prefix(strip_->content.size());
    ++state.stripped_front;
  }
  if (strip_->stop == 0) {
    out.append(text);
    return;
  }
  // Of what ends the text so far, at most `stop` copies of the content may still have to go.
  state.held_back.append(text);
  size_t kept = state.held_back.size();
  for (size_t i = 0; i < strip_->stop && std::string_view(state.held_back).substr(0, kept).ends_with(strip_->content);
       ++i) {
    kept -= strip_->content.size();
  }
  out.append(state.held_back, 0, kept);
  state.held_back.erase(0, kept);
}

}  // namespace scd
