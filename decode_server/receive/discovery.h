// What addresses the names in prefill.endpoints have at present. Looking names up may take seconds: a thread of its own
// does it, so no request waits for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"

namespace scd {

// Whether the host of a host:port has to be looked up: it is no numeric address.
bool is_name(const std::string& endpoint);
std::string host_of(const std::string& endpoint);

// All addresses of a host:port as numeric host:port, sorted; IPv4 where there is any, else IPv6, for a host with both
// is one peer, not two. UNAVAILABLE where the name has none. Blocks as long as resolv.conf allows.
Result<std::vector<std::string>> look_up(const std::string& endpoint);

class Discovery {
 public:
  struct Args {
    std::vector<std::string> names;  // host:port each; none: no thread
    std::chrono::milliseconds every;
    std::function<Result<std::vector<std::string>>(const std::string& name)> look_up;
    // On this object's thread, for each name, every time.
    std::function<void(const std::string& name, const Result<std::vector<std::string>>& addresses)> on_result;
  };
  // Returns when every name was looked up once, after a second at the latest.
  explicit Discovery(Args args);
  ~Discovery();  // waits for a look-up under way
  Discovery(const Discovery&) = delete;
  Discovery& operator=(const Discovery&) = delete;

  // Looks again before it is time to, though not more often than every second.
  void look_soon();

 private:
  void run();

  const Args args_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool looked_once_ = false;
  bool soon_ = false;
  bool stopping_ = false;
  std::jthread thread_;
};

}  // namespace scd
