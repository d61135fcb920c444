// GPT-2's alphabet: each of the 256 bytes written as one printable character (encoder.py of openai/gpt-2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace scd {

// The bytes of `text` as characters of the alphabet ("a b" -> "aĠb").
void append_byte_level(std::string_view text, std::string& out);
// At most this many bytes of output per byte of input.
inline constexpr size_t kByteLevelGrowth = 2;

std::optional<uint8_t> byte_of_character(char32_t character);

}  // namespace scd
