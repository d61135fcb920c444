#include "common/rpc/daemon.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/log/log.h"

namespace scd {
namespace {

int checked(int result, const char* call) {
  if (result < 0) throw Error(ErrorCode::kInternal, std::string(call) + ": " + std::strerror(errno));
  return result;
}

}  // namespace

struct ShutdownSignal::State {
  sigset_t previous_mask{};
  int signals = -1;  // signalfd
  int wake = -1;     // eventfd: request() and the end
  std::mutex mutex;
  std::condition_variable changed;
  int received = 0;           // under mutex
  std::mutex callback_mutex;  // held while it runs
  std::function<void()> on_second;

  State() {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    pthread_sigmask(SIG_BLOCK, &mask, &previous_mask);
    signals = checked(signalfd(-1, &mask, SFD_CLOEXEC), "signalfd");
    wake = checked(eventfd(0, EFD_CLOEXEC), "eventfd");
  }
  ~State() {
    close(signals);
    close(wake);
    pthread_sigmask(SIG_SETMASK, &previous_mask, nullptr);
  }
  void poke() const {
    const uint64_t one = 1;
    SCD_CHECK(write(wake, &one, sizeof one) == sizeof one, "an eventfd takes a write");
  }
};

ShutdownSignal::ShutdownSignal() : state_(std::make_unique<State>()) {
  thread_ = std::jthread([this](std::stop_token stop) {
    pthread_setname_np(pthread_self(), "scd-signals");
    run(std::move(stop));
  });
}

ShutdownSignal::~ShutdownSignal() {
  thread_.request_stop();
  state_->poke();
}

void ShutdownSignal::wait() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->received > 0; });
}

void ShutdownSignal::on_second(std::function<void()> callback) {
  std::scoped_lock lock(state_->callback_mutex);
  state_->on_second = std::move(callback);
}

void ShutdownSignal::request() { state_->poke(); }

void ShutdownSignal::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::array<pollfd, 2> waiting = {pollfd{state_->signals, POLLIN, 0}, pollfd{state_->wake, POLLIN, 0}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;  // EINTR
    if ((waiting[1].revents & POLLIN) != 0) {
      uint64_t count = 0;
      SCD_CHECK(read(state_->wake, &count, sizeof count) == sizeof count, "an eventfd gives its count");
      if (stop.stop_requested()) return;
      received();
    }
    if ((waiting[0].revents & POLLIN) != 0) {
      signalfd_siginfo told{};
      if (read(state_->signals, &told, sizeof told) != sizeof told) continue;
      log_info("signal", {{"number", told.ssi_signo}});
      received();
    }
  }
}

void ShutdownSignal::received() {
  bool second = false;
  {
    std::scoped_lock lock(state_->mutex);
    second = ++state_->received == 2;
  }
  state_->changed.notify_all();
  std::scoped_lock lock(state_->callback_mutex);
  if (second && state_->on_second) state_->on_second();
}

void write_port_file(const std::filesystem::path& file, int port) {
  std::filesystem::path half = file;
  half += ".part";
  std::ofstream stream(half);
  stream << port << "\n";
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(half, file, error);
  if (!stream || error) {
    throw Error(ErrorCode::kInvalidArgument, "--port-file: cannot write " + file.string());
  }
}

}  // namespace scd
