#include "common/transport/options.h"

#include <cmath>

#include "common/base/error.h"
#include "common/transport/ucx/socket_address.h"

namespace scd {
namespace {

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorCode::kInvalidArgument, message);
}

}  // namespace

void check_options(const TransportOptions& options) {
  require(options.port_last == 0 || options.port_last >= options.port_first,
          "transport: last port " + std::to_string(options.port_last) + " lies before the first, " +
              std::to_string(options.port_first));
  require(options.slot_bytes >= 4096,
          "transport: slot_bytes is " + std::to_string(options.slot_bytes) + "; at least 4096 are needed");
  require(options.slots >= 1 && options.slots <= 65536,
          "transport: slots is " + std::to_string(options.slots) + "; 1 to 65536 are possible");
  require(options.peer_timeout >= std::chrono::milliseconds(50),
          "transport: peer_timeout_ms is " + std::to_string(options.peer_timeout.count()) + "; at least 50 are needed");
  require(options.send_queue >= 1, "transport: send_queue must be at least 1");
  require(options.sends_in_flight >= 1, "transport: sends_in_flight must be at least 1");
  require(options.bytes_in_flight >= 4096,
          "transport: bytes_in_flight is " + std::to_string(options.bytes_in_flight) + "; at least 4096 are needed");
  require(std::isfinite(options.bandwidth_gbps) && options.bandwidth_gbps >= 0,
          "link.bandwidth_gbps must be 0 (no cap) or positive");
}

void check_addresses(const TransportOptions& options) {
  std::string key = "transport.listen_host";
  try {
    resolve_address(options.listen_host, options.port_first);
    key = "transport.advertise";
    advertised_address(options.advertise, options.listen_host, options.port_first);
  } catch (const Error& error) {
    throw Error(error.code(), key + ": " + error.what());
  }
}

}  // namespace scd
