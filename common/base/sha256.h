// SHA-256 (FIPS 180-4), by OpenSSL: fingerprints, block hashes, encoder ids.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace scd {

using Sha256Digest = std::array<uint8_t, 32>;

// Incremental hash; finish() once.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  Sha256Digest finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Sha256Digest sha256(std::span<const std::byte> bytes);
Sha256Digest sha256(std::string_view text);
std::string to_hex(std::span<const uint8_t> bytes);  // lower case

}  // namespace scd
