#include "tools/scd/interrupt.h"

#include <unistd.h>

#include <iostream>

namespace scd {
namespace {

constexpr int kInterruptedStatus = 130;  // as a shell reports an interrupt

}  // namespace

Interrupt::Interrupt() {
  signal_.on_second([this] {
    if (!over_.load(std::memory_order_acquire)) _exit(kInterruptedStatus);  // the kernel ends the children
  });
  watcher_ = std::jthread([this] {
    signal_.wait();
    if (over_.load(std::memory_order_acquire)) return;
    std::cerr << "\nscd: interrupted; finishing what was begun (again: at once)\n";
    stop_.request_stop();
  });
}

Interrupt::~Interrupt() {
  over_.store(true, std::memory_order_release);
  signal_.request();  // wakes the watcher
  watcher_.join();
}

}  // namespace scd
