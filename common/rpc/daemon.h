// What the mains of both daemons share: signals, and telling the outside world the bound port.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <thread>

namespace scd {

// Waits for SIGTERM and SIGINT on a thread of its own. Construct before any other thread starts: the signals are
// blocked in this thread and in all it starts later. No work is done in a signal handler.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Blocks until a first signal came, or request() was called.
  void wait();
  // Called once, on the signal thread, at the second signal: "quick but clean". Set before the first. Once another one
  // is set, or none, the one before does not run any more.
  void on_second(std::function<void()> callback);
  void request();  // as if a signal came

 private:
  void run(std::stop_token stop);
  void received();

  struct State;
  std::unique_ptr<State> state_;
  std::jthread thread_;
};

// Writes the port and a newline into `file`, by renaming, so that a reader never sees half of it. Throws Error.
void write_port_file(const std::filesystem::path& file, int port);

}  // namespace scd
