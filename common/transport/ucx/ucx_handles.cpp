#include "common/transport/ucx/ucx_handles.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "common/log/log.h"
#include "common/transport/ucx/socket_address.h"
#include "common/transport/ucx/ucx_check.h"
#include "common/transport/ucx/ucx_settings.h"

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

class UcxConfig {
 public:
  UcxConfig() { ucx_check(ucp_config_read(nullptr, nullptr, &handle_), "ucp_config_read"); }
  UcxConfig(const UcxConfig&) = delete;
  UcxConfig& operator=(const UcxConfig&) = delete;
  ~UcxConfig() { ucp_config_release(handle_); }

  void apply(const UcxSetting& setting) {
    if (setting.by_user) return;  // UCX has read it already
    ucx_check(ucp_config_modify(handle_, setting.key.c_str(), setting.value.c_str()),
              "UCX setting " + setting.variable + "=" + setting.value);
  }
  const ucp_config_t* handle() const { return handle_; }

 private:
  ucp_config_t* handle_ = nullptr;
};

}  // namespace

UcxContext::UcxContext(const TransportOptions& options) {
  UcxConfig config;
  for (const UcxSetting& setting : ucx_settings(options)) config.apply(setting);
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

UcxRegistration::UcxRegistration(const UcxContext& context, std::span<std::byte> memory, std::string_view what)
    : context_(context.handle()) {
  if (memory.empty()) return;
  ucp_mem_map_params_t params{};
  params.field_mask =
      UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
  params.address = memory.data();
  params.length = memory.size();
  params.memory_type = UCS_MEMORY_TYPE_HOST;
  const ucs_status_t status = ucp_mem_map(context_, &params, &handle_);
  if (status == UCS_OK) return;
  handle_ = nullptr;
  log_warning("memory_not_registered", {{"memory", what},
                                        {"mib", memory.size() >> 20},
                                        {"reason", ucs_status_string(status)},
                                        {"next", "raise the limit of locked memory (ulimit -l)"}});
}

UcxRegistration::~UcxRegistration() {
  if (handle_ != nullptr) ucp_mem_unmap(context_, handle_);
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

UcxListener::UcxListener(const UcxWorker& worker, const TransportOptions& options,
                         ucp_listener_conn_handler_t handler) {
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
