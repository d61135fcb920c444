// A prefill server: the producer's model behind a PrefillService and a data plane.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/metrics/registry.h"
#include "common/model/workspace.h"
#include "common/transport/transport.h"
#include "prefill_server/config.h"
#include "prefill_server/counters.h"

namespace scd {

// What its steps work in on a GPU.
WorkspaceLimits workspace_limits(const PrefillConfig& config, const ModelConfig& model);

// Of memory that network cards know, which they may pin all of: for codes that wait for their consumer or are kept in
// the code cache, 2 GiB at most.
size_t send_memory_mib(const PrefillConfig& config);

class PrefillServer {
 public:
  // Loads the model, listens, warms up, then serves. transport: null makes the one the configuration asks for.
  // Throws Error saying what is wrong with configuration, checkpoint, artifact or addresses.
  explicit PrefillServer(const PrefillConfig& config, std::unique_ptr<Transport> transport = nullptr);
  ~PrefillServer();  // quick but clean: live requests end with UNAVAILABLE
  PrefillServer(const PrefillServer&) = delete;
  PrefillServer& operator=(const PrefillServer&) = delete;

  const std::string& address() const;  // of the gRPC service, host:port
  int port() const;
  const std::string& metrics_address() const;  // host:port; empty when metrics.listen is
  std::string data_plane_address() const;

  // NOT_SERVING; refuses new requests, waits for running ones up to the timeout, then stops listening. Returns how many
  // requests had to be ended.
  size_t drain(std::chrono::milliseconds timeout);
  // A drain that waits does so no longer.
  void hurry();

  PrefillCounters counters() const;
  const MetricsRegistry& metrics() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace scd
