// A child process with pipes to its standard input and output; killed and reaped with its owner.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scd {

class ChildProcess {
 public:
  // args[0] is looked up in PATH. `environment`: variables to set besides the inherited ones. Throws Error(NOT_FOUND)
  // when the program cannot be started.
  ChildProcess(std::vector<std::string> args, const std::vector<std::pair<std::string, std::string>>& environment);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  void write_line(std::string_view line);
  std::string read_line();  // without its newline; empty at the end
  std::string read_rest();
  int wait();  // for its end: the exit status, or -1 when a signal ended it

 private:
  pid_t pid_ = -1;
  std::FILE* in_ = nullptr;
  std::FILE* out_ = nullptr;
};

}  // namespace scd
