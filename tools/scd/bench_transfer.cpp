#include "tools/scd/bench_transfer.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/error.h"
#include "common/transport/credit.h"
#include "common/transport/transport.h"
#include "common/transport/ucx/ucx_settings.h"
#include "tools/scd/child_process.h"
#include "tools/scd/report.h"
#include "tools/scd/transfer_receiver.h"

namespace scd {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{30};
constexpr double kMebi = 1024.0 * 1024.0;

struct BenchTransferOptions {
  std::vector<std::string> transports{"tcp", "sm,self"};
  std::vector<uint64_t> sizes{65536, 262144, 1048576, 4194304};
  uint64_t megabytes = 2048;
  int repeats = 7;
  uint64_t slots = 64;
  uint64_t bytes_in_flight = TransportOptions{}.bytes_in_flight;
  bool verify = false;
  std::filesystem::path json;
};

// What one side-by-side measurement needs to know.
struct Case {
  TransportOptions transport;
  uint64_t bytes = 0;  // of a message
  uint64_t messages = 0;
  uint64_t warm_up = 0;
};

TransportOptions transport_options(const std::string& transports, const BenchTransferOptions& options) {
  TransportOptions transport;
  transport.listen_host = "127.0.0.1";
  transport.transports = transports;
  transport.slot_bytes = std::max<size_t>(4096, std::ranges::max(options.sizes));
  transport.slots = options.slots;
  transport.bytes_in_flight = options.bytes_in_flight;
  return transport;
}

// Our sender in this process, our receiver in another.
class OwnTransfer {
 public:
  OwnTransfer(const TransportOptions& options, bool verify)
      : transport_(make_transport(options)),
        receiver_({std::filesystem::read_symlink("/proc/self/exe").string(), "bench", "transfer-receiver",
                   "--transports", options.transports, "--slot-bytes", std::to_string(options.slot_bytes), "--slots",
                   std::to_string(options.slots), verify ? "--verify" : "--free-at-once"},
                  {}),
        slots_(options.slots) {
    peer_ = receiver_.read_line();
    if (peer_.empty()) throw Error(ErrorCode::kUnavailable, "the receiving process ended at once");
  }

  // Payload MiB/s from the first send until the receiver has freed the last message.
  double measure(const Case& c) {
    const SharedBytes payload = SharedBytes::from(ByteBuffer(c.bytes, std::byte{0x5A}));
    const uint32_t crc = crc32c(payload.bytes);
    transfer(payload, crc, c.warm_up);
    const auto start = Clock::now();
    transfer(payload, crc, c.messages);
    return static_cast<double>(c.messages * c.bytes) / kMebi /
           std::chrono::duration<double>(Clock::now() - start).count();
  }

  std::string lanes() const {
    const auto peers = transport_->peers();
    return peers.empty() ? "" : peers.front().lanes;
  }

 private:
  void transfer(const SharedBytes& payload, uint32_t crc, uint64_t messages) {
    ++request_;
    receiver_.write_line("receive " + std::to_string(request_) + " " + std::to_string(messages));
    if (receiver_.read_line() != "ready") throw Error(ErrorCode::kUnavailable, "the receiving process ended");
    SendCredit credit(slots_);
    std::jthread acknowledgements([&] { read_credit(credit, messages); });
    const auto deadline = Clock::now() + kPatience;
    for (uint64_t i = 0; i < messages; ++i) {
      credit.take(deadline).value_or_throw();
      SendJob job{.peer = peer_, .payload = payload};
      job.header.request_id = request_;
      job.header.generation = 1;
      job.header.sequence = static_cast<uint32_t>(i);
      job.header.payload_crc = crc;
      transport_->send(std::move(job)).value_or_throw();
    }
    acknowledgements.join();
  }

  void read_credit(SendCredit& credit, uint64_t messages) {
    for (uint64_t freed = 0; freed < messages;) {
      std::istringstream line(receiver_.read_line());
      std::string word;
      uint64_t count = 0;
      if (!(line >> word >> count)) return credit.close();  // the receiver is gone
      freed += count;
      credit.give(count);
    }
  }

  std::unique_ptr<Transport> transport_;
  ChildProcess receiver_;
  std::string peer_;
  const size_t slots_;
  uint64_t request_ = 0;
};

uint16_t free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool found = bind(descriptor, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  close(descriptor);
  if (!found) throw Error(ErrorCode::kUnavailable, "no free TCP port on 127.0.0.1");
  return ntohs(address.sin_port);
}

// MiB/s over the whole run: the sixth number of the last line that ucx_perftest -f prints.
double parse_perftest(const std::string& printed) {
  std::istringstream lines(printed);
  double rate = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<double> numbers;
    for (double number = 0; words >> number;) numbers.push_back(number);
    if (numbers.size() == 8) rate = numbers[5];
  }
  return rate;
}

// ucx_perftest says nothing when it listens; the kernel does (proc(5): state 0A, port in hexadecimal).
bool wait_until_listening(uint16_t port) {
  std::ostringstream pattern;
  pattern << ":" << std::uppercase << std::hex << std::setw(4) << std::setfill('0') << port << " 00000000:0000 0A";
  for (const auto deadline = Clock::now() + std::chrono::seconds(5); Clock::now() < deadline;) {
    std::ifstream sockets("/proc/net/tcp");
    for (std::string line; std::getline(sockets, line);) {
      if (line.find(pattern.str()) != std::string::npos) return true;
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(5));  // another program's state: there is no event to wait for
  }
  return false;
}

// The same messages by `ucx_perftest -e -t ucp_am_bw`, with our settings, in MiB/s.
double measure_perftest(const Case& c) {
  std::vector<std::pair<std::string, std::string>> environment;
  for (const auto& setting : ucx_settings(c.transport)) environment.emplace_back(setting.variable, setting.value);
  const uint16_t port = free_port();
  const std::string port_text = std::to_string(port);
  ChildProcess server({"ucx_perftest", "-p", port_text, "-e"}, environment);
  if (wait_until_listening(port)) {
    ChildProcess client({"ucx_perftest", "127.0.0.1", "-p", port_text, "-e", "-f", "-t", "ucp_am_bw", "-s",
                         std::to_string(c.bytes), "-n", std::to_string(c.messages), "-w", std::to_string(c.warm_up)},
                        environment);
    const double rate = parse_perftest(client.read_rest());
    if (rate > 0) return rate;
  }
  throw Error(ErrorCode::kUnavailable, "ucx_perftest (Debian package ucx-utils) gave no result");
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void run(const BenchTransferOptions& options) {
  Report report;
  TextTable table({"transport", "message", "scd MiB/s", "ucx_perftest MiB/s", "share", "lanes"});
  for (const std::string& transports : options.transports) {
    OwnTransfer own(transport_options(transports, options), options.verify);
    for (const uint64_t bytes : options.sizes) {
      const uint64_t messages = std::max<uint64_t>(20, options.megabytes * (uint64_t{1} << 20) / bytes);
      const Case c{transport_options(transports, options), bytes, messages, std::max<uint64_t>(10, messages / 10)};
      std::vector<double> ours;
      std::vector<double> reference;
      for (int i = 0; i < options.repeats; ++i) {  // in turns, so that both meet the same disturbances
        ours.push_back(own.measure(c));
        reference.push_back(measure_perftest(c));
        std::cerr << transports << " " << bytes << " bytes, " << i + 1 << " of " << options.repeats << ": "
                  << format_fixed(ours.back(), 0) << " and " << format_fixed(reference.back(), 0) << " MiB/s\n";
      }
      const double share = median(ours) / median(reference);
      table.add_row({transports, std::to_string(bytes >> 10) + " KiB", format_fixed(median(ours), 0),
                     format_fixed(median(reference), 0), format_percent(share), own.lanes()});
      report.add_row({{"task", "transfer"},
                      {"transport", transports},
                      {"lanes", own.lanes()},
                      {"message_bytes", bytes},
                      {"messages", messages},
                      {"repeats", options.repeats},
                      {"crc_verified", options.verify},
                      {"mib_per_s", median(ours)},
                      {"ucx_perftest_mib_per_s", median(reference)},
                      {"ucx_perftest_share", share}});
    }
  }
  table.print(std::cout);
  report.write(options.json);
}

void add_receiver_command(CLI::App& bench_app) {
  auto options = std::make_shared<TransferReceiverOptions>();
  CLI::App* command = bench_app.add_subcommand("transfer-receiver", "The other end of `bench transfer`");
  command->group("");  // not in the help: started by `bench transfer`
  options->transport.listen_host = "127.0.0.1";
  command->add_option("--transports", options->transport.transports);
  command->add_option("--slot-bytes", options->transport.slot_bytes);
  command->add_option("--slots", options->transport.slots);
  command->add_flag("--verify,!--free-at-once", options->verify);
  command->callback([options] { run_transfer_receiver(*options); });
}

}  // namespace

void add_bench_transfer_command(CLI::App& bench_app) {
  auto options = std::make_shared<BenchTransferOptions>();
  CLI::App* command = bench_app.add_subcommand("transfer",
                                               "Bandwidth of the data plane between two processes of this machine, "
                                               "beside `ucx_perftest -e -t ucp_am_bw` with the "
                                               "same transport, settings and message size, measured in turns. Payload "
                                               "CRCs are made beforehand, as at encoding.");
  command
      ->add_option("--transports", options->transports,
                   "Transport lists as in UCX_TLS, one measurement each; with ; between them")
      ->delimiter(';')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--sizes", options->sizes, "Message sizes, comma-separated; 64K, 1M and the like are understood")
      ->transform(CLI::AsSizeValue(false))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--megabytes", options->megabytes, "Payload of one measurement")->capture_default_str();
  command->add_option("--repeats", options->repeats, "Measurements of each; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--slots", options->slots, "Staging slots of the receiver: messages under way at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--bytes-in-flight", options->bytes_in_flight, "transport.bytes_in_flight of the sender")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command->add_flag(
      "--verify", options->verify,
      "Check payload CRCs on another thread of the receiver, which frees the messages, as a decode server does");
  command->add_option("--json", options->json, "File for machine, commit, command and rows");
  command->callback([options] { run(*options); });
  add_receiver_command(bench_app);
}

}  // namespace scd
