// The transport over UCX active messages. One worker, one thread that alone calls UCX.
#pragma once

#include <memory>

#include "common/transport/transport.h"

namespace scd {

// Errors as make_transport.
std::unique_ptr<Transport> make_ucx_transport(const TransportOptions& options);

}  // namespace scd
