#include "common/transport/transport.h"

#include <utility>

#include "common/transport/loopback.h"
#include "common/transport/ucx/ucx_transport.h"

namespace scd {

SharedBytes SharedBytes::from(ByteBuffer bytes) {
  auto owner = std::make_shared<const ByteBuffer>(std::move(bytes));
  const std::span<const std::byte> view(*owner);
  return {view, std::move(owner)};
}

std::unique_ptr<Transport> make_transport(const TransportOptions& options, LoopbackNetwork* network) {
  if (options.kind == TransportKind::kUcx) return make_ucx_transport(options);
  if (network == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "transport.kind: loopback connects servers of one process only; use ucx");
  }
  return make_loopback_transport(options, *network);
}

}  // namespace scd
