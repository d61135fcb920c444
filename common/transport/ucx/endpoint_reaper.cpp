#include "common/transport/ucx/endpoint_reaper.h"

namespace scd {

void EndpointReaper::close(ucp_ep_h endpoint) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  track(ucp_ep_close_nbx(endpoint, &param));
}

void EndpointReaper::flush(ucp_ep_h endpoint) {
  const ucp_request_param_t param{};
  track(ucp_ep_flush_nbx(endpoint, &param));
}

void EndpointReaper::track(ucs_status_ptr_t request) {
  // Whatever the status, an operation without a request is over.
  if (UCS_PTR_IS_PTR(request)) requests_.push_back(request);
}

void EndpointReaper::poll() {
  std::erase_if(requests_, [](void* request) {
    if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
    ucp_request_free(request);
    return true;
  });
}

}  // namespace scd
