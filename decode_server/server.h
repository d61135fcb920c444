// A decode server as an object: the daemon's main holds one, tests hold several in one process.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "common/metrics/registry.h"
#include "common/model/workspace.h"
#include "common/transport/transport.h"
#include "decode_server/config.h"
#include "decode_server/counters.h"

namespace scd {

// What its steps work in on a GPU.
WorkspaceLimits workspace_limits(const DecodeConfig& config, const ModelConfig& model);

class DecodeServer {
 public:
  // Loads the model, listens, warms up; health says SERVING when this returns. transport: null makes the one the
  // configuration asks for. Throws Error saying what is wrong with configuration, checkpoint, artifact or addresses.
  explicit DecodeServer(const DecodeConfig& config, std::unique_ptr<Transport> transport = nullptr);
  ~DecodeServer();  // requests that still run end with UNAVAILABLE
  DecodeServer(const DecodeServer&) = delete;
  DecodeServer& operator=(const DecodeServer&) = delete;

  const std::string& address() const;  // host:port of the gRPC API
  int port() const;
  const std::string& metrics_address() const;  // host:port; empty when metrics.listen is

  // NOT_SERVING; refuses new requests, waits for running ones up to the timeout, then stops listening. Returns how many
  // requests had to be ended.
  size_t drain(std::chrono::milliseconds timeout);
  // Ends every request with UNAVAILABLE; a drain that waits does so no longer. Any thread.
  void hurry();

  ServerCounters counters() const;
  const MetricsRegistry& metrics() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace scd
