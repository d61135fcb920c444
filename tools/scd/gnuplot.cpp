#include "tools/scd/gnuplot.h"

#include <fstream>

#include "common/base/error.h"
#include "tools/scd/child_process.h"
#include "tools/scd/temporary_folder.h"

namespace scd {
namespace {

constexpr const char* kProgram = "gnuplot";

// noenhanced: underscores and braces of labels are just characters.
// noenhanced: underscores and braces of labels are just characters. PNG has twice the pixels, for paper.
std::string terminal(const Figure& figure, bool svg, const std::filesystem::path& file) {
  const int pixels = svg ? 1 : 2;
  const std::string size = std::to_string(pixels * figure.width) + "," + std::to_string(pixels * figure.height);
  return std::string("reset\nset terminal ") +
         (svg ? "svg dynamic font 'DejaVu Sans,12'"
              : "pngcairo font 'DejaVu Sans,10' fontscale 2 linewidth 2 pointscale 2") +
         " noenhanced background '#ffffff' size " + size + "\nset output " + gnuplot_quoted(file.string()) + "\n";
}

std::string script_of(const Figure& figure, const std::filesystem::path& folder) {
  const auto file = [&](const char* ending) { return folder / (figure.name + ending); };
  return "set encoding utf8\nset decimalsign '.'\n" + figure.data + terminal(figure, true, file(".svg")) +
         figure.commands + "unset output\n" + terminal(figure, false, file(".png")) + figure.commands +
         "unset output\n";
}

void run_gnuplot(const std::filesystem::path& script, const std::string& name) {
  try {
    ChildProcess gnuplot({kProgram, "-d", script.string()}, {{"LC_ALL", "C.UTF-8"}});  // -d: nobody's start-up file
    gnuplot.read_rest();
    const int status = gnuplot.wait();
    if (status == 0) return;
    throw Error(ErrorCode::kInternal, "gnuplot ended with status " + std::to_string(status) + " while drawing " + name +
                                          "; its message stands above");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
    throw Error(error.code(), "gnuplot is not installed; install it with: apt-get install gnuplot-nox");
  }
}

}  // namespace

std::string gnuplot_quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\'') {
      quoted += "''";
    } else {
      quoted += byte < 0x20 || byte == 0x7F ? ' ' : c;
    }
  }
  return quoted + "'";
}

std::string figure_file_name(std::string_view text) {
  std::string name;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    name += plain ? c : '_';
  }
  return name;
}

void draw_figures(const std::vector<Figure>& figures, const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw Error(ErrorCode::kUnavailable, folder.string() + ": cannot be made: " + failed.message());
  const TemporaryFolder scripts("scd-plot");
  for (const Figure& figure : figures) {
    const auto script = scripts.path() / (figure.name + ".gp");
    std::ofstream out(script, std::ios::binary);
    out << script_of(figure, std::filesystem::absolute(folder));
    out.close();
    if (!out) throw Error(ErrorCode::kUnavailable, script.string() + ": cannot be written; is there room?");
    run_gnuplot(script, figure.name);
  }
}

}  // namespace scd
