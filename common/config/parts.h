// Settings that both servers share, and their keys.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "common/config/visitor.h"
#include "common/log/options.h"
#include "common/metrics/options.h"
#include "common/rpc/options.h"
#include "common/transport/options.h"

namespace scd {

enum class Precision : uint8_t { kAuto, kBF16, kFP32 };  // kAuto: BF16 where the device multiplies it, else FP32

struct ModelOptions {
  std::filesystem::path directory;  // a Hugging Face checkpoint
  std::filesystem::path adapter;    // a PEFT LoRA adapter; empty: none
  std::string name;                 // what clients call it; empty: the directory's name
  Precision precision = Precision::kAuto;
};

// The numbers of the protocol's Codec; kAuto leaves the choice to the server.
enum class CodecMode : uint8_t {
  kAuto = 0,
  kRaw = 1,
  kScd = 2,
  kOracle = 3,
  kLossless = 4,
  kInt8 = 5,
  kInt4 = 6,
  kRd = 7,
  kKvtc = 8,
  kDroidSpeak = 9,
  kLoraDelta = 10
};

struct RankOptions {  // 0: as calibrated
  int32_t key = 0;
  int32_t value = 0;
  int32_t hidden = 0;
};

// What a consumer asks for.
struct CodecOptions {
  CodecMode mode = CodecMode::kAuto;
  std::filesystem::path artifact;  // directory with encoder/ and decoders/; needed by calibrated codecs
  int32_t level = -1;              // of rd and kvtc; -1: as max_kl allows
  RankOptions rank;
  bool exact_layer0 = true;                  // compute layer 0 from the token ids instead of having it sent
  int32_t sinks = 16;                        // first tokens computed here; whole pages
  int32_t suffix_tokens = 32;                // last tokens computed here, at least
  std::chrono::milliseconds ttft_target{0};  // chooses the level by the bandwidth measured; 0: fixed level
  double max_native_share = 1;               // of the consumer's layers, run over the prefix
  double max_kl = 0;                         // artifacts whose bound of KL on answers is larger are refused; 0: any
};

struct KvCacheOptions {
  int32_t pages = 4096;               // of 16 tokens each
  double gpu_memory_fraction = 0.45;  // 0: pages count on a GPU too
};

void describe(ConfigVisitor& at, ModelOptions& model);
void describe(ConfigVisitor& at, RankOptions& rank);
void describe(ConfigVisitor& at, CodecOptions& codec);
void describe(ConfigVisitor& at, KvCacheOptions& cache);
void describe(ConfigVisitor& at, TlsOptions& tls);
void describe(ConfigVisitor& at, GrpcOptions& grpc);
void describe(ConfigVisitor& at, LogOptions& log);
void describe(ConfigVisitor& at, MetricsOptions& metrics);
void describe(ConfigVisitor& at, TransportOptions& transport);
void describe_device(ConfigVisitor& at, std::string& device);
// `threads`: of the compute executor; 0: as many as the process may use cores.
void describe_threads(ConfigVisitor& at, int32_t& threads);

// Throws Error INVALID_ARGUMENT naming the key where the value is not host:port.
void check_host_port(const std::string& key, const std::string& value);
void check_metrics(const MetricsOptions& metrics);  // as check_host_port, unless it is off
// What a daemon needs from its machine before it starts. Throws Error: NOT_FOUND naming key and path of a file that is
// not there, INVALID_ARGUMENT where the transport cannot leave the process or has an address that cannot be resolved.
void check_files(const ModelOptions& model, const std::filesystem::path& artifact, const TlsOptions& tls);
// NOT_FOUND naming the key where the path is given and not there.
void check_exists(const std::string& key, const std::filesystem::path& path);
void check_for_daemon(const TransportOptions& transport);

}  // namespace scd
