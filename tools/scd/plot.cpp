#include "tools/scd/plot.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "tools/scd/plot_figures.h"
#include "tools/scd/plot_page.h"

namespace scd {
namespace {

struct PlotOptions {
  std::vector<std::filesystem::path> files;
  std::filesystem::path out;
  std::string title = "Codecs of a prefill/decode pair";
  int64_t prompt_tokens = 0;
};

void run(const PlotOptions& options) {
  const PlotInput input = read_plot_input(options.files);
  const std::vector<Figure> figures = make_figures(input, options.prompt_tokens);
  draw_figures(figures, options.out);
  write_plot_page(options.out / "report.html", options.title, input, figures, options.out);
  for (const Figure& figure : figures) {
    std::cout << (options.out / figure.name).string() << ".svg, .png: " << figure.caption << "\n";
  }
  std::cout << (options.out / "report.html").string() << ": all of them, and the numbers\n";
}

}  // namespace

void add_plot_command(CLI::App& app) {
  const auto options = std::make_shared<PlotOptions>();
  CLI::App* command = app.add_subcommand(
      "plot",
      "Draw what eval, bench pair, bench pareto and bench serve wrote with --json: quality against bytes a token,\n"
      "quality against the time to the first token with its Pareto front, the parts of that time, latencies and\n"
      "throughput over the load, and (of calibrate) the loss by layer. SVG and PNG each, and report.html with figures\n"
      "and numbers. Needs gnuplot (Debian package gnuplot-nox).\n"
      "  scd plot eval.json pareto.json --out figures");
  command->add_option("files", options->files, "JSON files; codecs are joined across them by name and level")
      ->required();
  command->add_option("--out", options->out, "Folder to write")->required();
  command->add_option("--title", options->title, "Of the page")->capture_default_str();
  command
      ->add_option("--prompt-tokens", options->prompt_tokens, "Which prompts of bench pareto to draw; 0: the longest")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->callback([options] { run(*options); });
}

}  // namespace scd
