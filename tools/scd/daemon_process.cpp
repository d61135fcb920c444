#include "tools/scd/daemon_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {  // not in the header of glibc 2.36
#include <sys/pidfd.h>
}

#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "common/base/error.h"

namespace scd {
namespace {

constexpr int kPollMs = 50;
constexpr int kDrainMs = 10'000;
constexpr size_t kLastLines = 5;

std::filesystem::path binary_beside_this(const std::string& name) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  if (access(path.c_str(), X_OK) == 0) return path;
  throw Error(ErrorCode::kNotFound,
              path.string() + " is not there; build it beside scd: cmake --build FOLDER --target " + name);
}

// Between fork and exec only calls that are safe in a process with other threads.
[[noreturn]] void become(char* const* arguments, int log, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);  // a terminal's interrupt reaches us, and we end the servers in order
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // it died before the request above
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execv(arguments[0], arguments);
  _exit(127);
}

pid_t start(std::vector<std::string> command, const std::filesystem::path& log_file) {
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int log = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) throw Error(ErrorCode::kUnavailable, log_file.string() + ": " + std::strerror(errno));
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(arguments.data(), log, parent);
  const int error = errno;
  close(log);
  if (pid < 0) throw Error(ErrorCode::kResourceExhausted, std::string("fork: ") + std::strerror(error));
  return pid;
}

bool ended_within(int handle, int milliseconds) {
  pollfd waiting{handle, POLLIN, 0};
  return poll(&waiting, 1, milliseconds) > 0;
}

}  // namespace

DaemonProcess::DaemonProcess(const Args& args, std::stop_token stop)
    : name_(args.name), log_(args.folder / (args.name + ".log")) {
  const auto port_file = args.folder / (args.name + ".port");
  std::vector<std::string> command{binary_beside_this(name_).string(), "--port-file", port_file.string()};
  for (const std::string& setting : args.settings) command.insert(command.end(), {"--set", setting});
  pid_ = start(std::move(command), log_);
  handle_ = pidfd_open(pid_, 0);
  try {
    if (handle_ < 0) throw Error(ErrorCode::kUnavailable, std::string("pidfd_open: ") + std::strerror(errno));
    wait_until_listening(port_file, stop);
  } catch (...) {
    end();
    throw;
  }
}

DaemonProcess::~DaemonProcess() { end(); }

void DaemonProcess::wait_until_listening(const std::filesystem::path& port_file, const std::stop_token& stop) {
  std::string port;
  while (!(std::ifstream(port_file) >> port)) {
    if (stop.stop_requested()) throw Error(ErrorCode::kCancelled, "interrupted while " + name_ + " was starting");
    if (ended_within(handle_, kPollMs)) {
      throw Error(ErrorCode::kUnavailable, name_ + " ended before it listened; its last words:\n" + last_words());
    }
  }
  address_ = "127.0.0.1:" + port;
}

void DaemonProcess::end() {
  if (pid_ <= 0) return;
  if (handle_ < 0) {
    kill(pid_, SIGKILL);  // ours until it is waited for
  } else {
    pidfd_send_signal(handle_, SIGTERM, nullptr, 0);
    if (!ended_within(handle_, kDrainMs)) pidfd_send_signal(handle_, SIGKILL, nullptr, 0);
    close(std::exchange(handle_, -1));
  }
  waitpid(std::exchange(pid_, -1), nullptr, 0);
}

// /proc/PID/stat (proc(5)): utime and stime are the 12th and 13th fields after the name, which may hold anything.
double DaemonProcess::cpu_seconds() const {
  std::ifstream in("/proc/" + std::to_string(pid_) + "/stat");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, kernel = 0;
  if (!(fields >> user >> kernel))
    throw Error(ErrorCode::kUnavailable, name_ + " ended; its last words:\n" + last_words());
  return (user + kernel) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::string DaemonProcess::last_words() const {
  std::ifstream in(log_);
  std::deque<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
    if (lines.size() > kLastLines) lines.pop_front();
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text.empty() ? "(nothing)" : text;
}

}  // namespace scd
