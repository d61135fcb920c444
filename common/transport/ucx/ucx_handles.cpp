#include "common/transport/ucx/ucx_handles.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

#include "common/transport/ucx/socket_address.h"
#include "common/transport/ucx/ucx_check.h"

namespace scd {
namespace {

// Runs a UCX print function into a string.
template <class Print>
std::string printed(Print print) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* stream = open_memstream(&text, &size);
  if (stream == nullptr) return {};
  print(stream);
  std::fclose(stream);
  const std::unique_ptr<char, decltype(&std::free)> owner(text, std::free);
  return {text, size};
}

std::vector<std::string> split_list(std::string_view list) {
  std::vector<std::string> words;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (comma > 0) words.emplace_back(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return words;
}

bool uses_shared_memory(const std::vector<std::string>& transports) {
  static constexpr std::array<std::string_view, 6> kNames{"all", "sm", "shm", "mm", "posix", "sysv"};
  return transports.empty() ||
         std::ranges::any_of(transports, [](const std::string& name) { return std::ranges::find(kNames, name) != kNames.end(); });
}

// UCX_TLS for the transports the user named. "rdma" is our word for every InfiniBand or RoCE transport. Shared memory
// alone cannot connect: UCX 1.13 makes connections over an enabled network device, so tcp comes with it.
std::vector<std::string> ucx_transports(const TransportOptions& options) {
  std::vector<std::string> transports = split_list(options.transports);
  if (options.require == TransportRequirement::kRdma) transports = {"rdma", "self"};
  std::ranges::replace(transports, std::string("rdma"), std::string("ib"));
  const bool has_network = std::ranges::any_of(transports, [](const std::string& name) {
    return name == "all" || name == "tcp" || name == "ib" || name.starts_with("rc") || name.starts_with("dc") ||
           name.starts_with("ud");
  });
  if (!transports.empty() && !has_network) transports.emplace_back("tcp");
  return transports;
}

std::string join(const std::vector<std::string>& words) {
  std::string list;
  for (const auto& word : words) list += (list.empty() ? "" : ",") + word;
  return list;
}

class UcxConfig {
 public:
  UcxConfig() { ucx_check(ucp_config_read(nullptr, nullptr, &handle_), "ucp_config_read"); }
  UcxConfig(const UcxConfig&) = delete;
  UcxConfig& operator=(const UcxConfig&) = delete;
  ~UcxConfig() { ucp_config_release(handle_); }

  // Unless the user set `variable` (UCX_<name> by default). UCX's own key may differ from the variable's name.
  void set_default(const std::string& name, const std::string& value, const char* variable = nullptr) {
    if (std::getenv(variable != nullptr ? variable : ("UCX_" + name).c_str()) != nullptr) return;
    ucx_check(ucp_config_modify(handle_, name.c_str(), value.c_str()), "UCX setting " + name + "=" + value);
  }
  const ucp_config_t* handle() const { return handle_; }

 private:
  ucp_config_t* handle_ = nullptr;
};

void set_defaults(UcxConfig& config, const TransportOptions& options) {
  std::vector<std::string> transports = ucx_transports(options);
  if (!transports.empty()) config.set_default("TLS", join(transports));
  if (const char* chosen = std::getenv("UCX_TLS")) transports = split_list(chosen);
  // Twice per timeout: a peer that vanished without a word is noticed in time.
  config.set_default("KEEPALIVE_INTERVAL", std::to_string(options.peer_timeout.count() / 2) + "ms");
  if (uses_shared_memory(transports)) {
    // Without these, error handling (which we insist on) turns shared memory off. CMA reads the sender's buffer even
    // when the sender has given up meanwhile; such bytes fail their CRC.
    config.set_default("MM_ERROR_HANDLING", "y");
    config.set_default("MEMORY_INVALIDATE", "y", "UCX_CMA_MEMORY_INVALIDATE");
  }
}

}  // namespace

UcxContext::UcxContext(const TransportOptions& options) {
  UcxConfig config;
  set_defaults(config, options);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.name = "scd";
  ucx_check(ucp_init(&params, config.handle(), &handle_), "UCX with transports '" + options.transports + "'");
  const Lanes found = resources();
  if (options.require == TransportRequirement::kRdma && !found.rdma) {
    ucp_cleanup(handle_);
    throw Error(ErrorCode::kFailedPrecondition,
                "transport.require: rdma, but UCX finds no RDMA device here; it finds: " + found.text);
  }
}

Lanes UcxContext::resources() const {
  return parse_context_resources(printed([&](std::FILE* stream) { ucp_context_print_info(handle_, stream); }));
}

UcxWorker::UcxWorker(const UcxContext& context) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucx_check(ucp_worker_create(context.handle(), &params, &handle_), "ucp_worker_create");
}

int UcxWorker::event_descriptor() const {
  int descriptor = -1;
  ucx_check(ucp_worker_get_efd(handle_, &descriptor), "ucp_worker_get_efd");
  return descriptor;
}

UcxListener::UcxListener(const UcxWorker& worker, const TransportOptions& options, ucp_listener_conn_handler_t handler) {
  const uint32_t last = std::max(options.port_first, options.port_last);
  for (uint32_t port = options.port_first; port <= last; ++port) {
    const SocketAddress address = resolve_address(options.listen_host, static_cast<uint16_t>(port));
    ucp_listener_params_t params{};
    params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
    params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&address.storage);
    params.sockaddr.addrlen = address.length;
    params.conn_handler = handler;
    const ucs_status_t status = ucp_listener_create(worker.handle(), &params, &handle_);
    if (status == UCS_ERR_BUSY && port < last) continue;
    if (status == UCS_ERR_BUSY) {
      throw Error(ErrorCode::kUnavailable, "transport: no free port on " + options.listen_host + " from " +
                                               std::to_string(options.port_first) + " to " + std::to_string(last));
    }
    ucx_check(status, "transport: listening on " + address.text());
    break;
  }
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  ucx_check(ucp_listener_query(handle_, &attributes), "ucp_listener_query");
  port_ = SocketAddress{attributes.sockaddr, sizeof attributes.sockaddr}.port();
}

Lanes endpoint_lanes(ucp_ep_h endpoint) {
  return parse_endpoint_lanes(printed([&](std::FILE* stream) { ucp_ep_print_info(endpoint, stream); }));
}

}  // namespace scd
