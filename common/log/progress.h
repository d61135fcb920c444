// Progress of something a person waits for, on standard error: in place on a terminal, else a line every two seconds.
#pragma once

#include <chrono>
#include <string>

namespace scd {

// Not thread-safe. Says nothing when the work ends within two seconds, unless standard error is a terminal.
class Progress {
 public:
  explicit Progress(std::string title);
  ~Progress();  // ends the line where one is open
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // share in [0, 1]; note: what is being done, or figures ("loss 1.23"). Cheap: prints a few times a second at most.
  void update(double share, const std::string& note = {});
  // Prints the final state with the time it took; further updates are ignored.
  void finish(const std::string& note = {});

 private:
  void print(double share, const std::string& note, bool last);

  using Clock = std::chrono::steady_clock;
  const std::string title_;
  const bool terminal_;
  const Clock::time_point start_;
  Clock::time_point printed_;
  bool line_open_ = false;
  bool finished_ = false;
  bool said_something_ = false;
};

}  // namespace scd
