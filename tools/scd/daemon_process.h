// A server of this project as a child: its own process group, its output in a log file, never left behind.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

namespace scd {

class DaemonProcess {
 public:
  struct Args {
    std::string name;                   // of the binary beside this one
    std::filesystem::path folder;       // for its log and port file
    std::vector<std::string> settings;  // path=value
  };

  // Starts it and waits until it listens. `stop` ends the wait, and later the server. Throws Error: kNotFound without
  // the binary, kUnavailable with its last words when it ends at once, kCancelled after a stop. Call it on a thread
  // that lives as long as the process: the kernel ends the server when that thread is gone, however it went.
  DaemonProcess(const Args& args, std::stop_token stop);
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;
  ~DaemonProcess();  // SIGTERM, and SIGKILL when it has not drained in time

  const std::string& address() const { return address_; }  // host:port of its gRPC service
  std::string last_words() const;                          // the last lines of its log
  double cpu_seconds() const;                              // of all its threads so far, in user and kernel mode

 private:
  void wait_until_listening(const std::filesystem::path& port_file, const std::stop_token& stop);
  void end();

  std::string name_;
  std::filesystem::path log_;
  std::string address_;
  pid_t pid_ = -1;
  int handle_ = -1;  // pidfd: a signal through it never meets another process
};

}  // namespace scd
