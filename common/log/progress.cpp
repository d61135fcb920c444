#include "common/log/progress.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace scd {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::milliseconds kLineInterval{2000};
constexpr int kBarWidth = 30;

}  // namespace

Progress::Progress(std::string title)
    : title_(std::move(title)),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      printed_(terminal_ ? start_ - kTerminalInterval : start_) {}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', stderr);
}

void Progress::update(double share, const std::string& note) {
  if (finished_ || Clock::now() - printed_ < (terminal_ ? kTerminalInterval : kLineInterval)) return;
  print(std::clamp(share, 0.0, 1.0), note, false);
}

void Progress::finish(const std::string& note) {
  if (finished_) return;
  finished_ = true;
  if (terminal_ || said_something_) print(1.0, note, true);
}

void Progress::print(double share, const std::string& note, bool last) {
  printed_ = Clock::now();
  said_something_ = true;
  const double seconds = std::chrono::duration<double>(printed_ - start_).count();
  std::array<char, 64> figures{};
  if (last || share < 0.02) {
    std::snprintf(figures.data(), figures.size(), "%3.0f %% %6.1f s", share * 100, seconds);
  } else {
    std::snprintf(figures.data(), figures.size(), "%3.0f %% %6.1f s, %.0f s left", share * 100, seconds,
                  seconds * (1 - share) / share);
  }
  std::string line = title_ + " ";
  if (terminal_) {
    const int filled = static_cast<int>(share * kBarWidth);
    line += "[" + std::string(static_cast<size_t>(filled), '=') +
            std::string(static_cast<size_t>(kBarWidth - filled), ' ') + "] ";
  }
  line += figures.data();
  if (!note.empty()) line += "  " + note;
  // On a terminal: back to the start, clear to the end of the line.
  std::fputs(terminal_ ? ("\r\033[K" + line + (last ? "\n" : "")).c_str() : (line + "\n").c_str(), stderr);
  std::fflush(stderr);
  line_open_ = terminal_ && !last;
}

}  // namespace scd
