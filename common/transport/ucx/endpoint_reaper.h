// Flushes and closes endpoints without waiting: UCX may take a while to let go of one.
#pragma once

#include <ucp/api/ucp.h>

#include <vector>

namespace scd {

class EndpointReaper {
 public:
  void close(ucp_ep_h endpoint);  // gives up what is still on the way
  void flush(ucp_ep_h endpoint);
  void poll();  // lets go of what has ended
  bool idle() const { return requests_.empty(); }

 private:
  void track(ucs_status_ptr_t request);

  std::vector<void*> requests_;
};

}  // namespace scd
