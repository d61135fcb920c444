#include "common/config/parts.h"

#include <system_error>

#include "common/base/error.h"
#include "common/base/host_port.h"

namespace scd {

void describe(ConfigVisitor& at, ModelOptions& model) {
  at.path("directory", model.directory,
          "Hugging Face directory: config.json, tokenizer.json, *.safetensors. Must be set.");
  at.path("adapter", model.adapter, "PEFT LoRA adapter merged at load; empty: none.");
  at.text("name", model.name, "What clients call the model; empty: the directory's name.");
  at.choice("precision", model.precision,
            {{"auto", Precision::kAuto}, {"bf16", Precision::kBF16}, {"fp32", Precision::kFP32}},
            "Of weights and KV cache; auto: bf16 where the CPU multiplies it, else fp32.");
}

void describe(ConfigVisitor& at, RankOptions& rank) {
  constexpr Range<int32_t> kRange{0, 65536};
  at.number("key", rank.key, kRange, "Components of keys; 0: as calibrated.");
  at.number("value", rank.value, kRange, "Components of values; 0: as calibrated.");
  at.number("hidden", rank.hidden, kRange, "Components of the attention input in Patch layers; 0: as calibrated.");
}

void describe(ConfigVisitor& at, CodecOptions& codec) {
  at.choice(
      "mode", codec.mode,
      {{"auto", CodecMode::kAuto},
       {"raw", CodecMode::kRaw},
       {"lossless", CodecMode::kLossless},
       {"int8", CodecMode::kInt8},
       {"int4", CodecMode::kInt4},
       {"scd", CodecMode::kScd},
       {"rd", CodecMode::kRd},
       {"kvtc", CodecMode::kKvtc},
       {"droidspeak", CodecMode::kDroidSpeak},
       {"lora_delta", CodecMode::kLoraDelta},
       {"oracle", CodecMode::kOracle}},
      "How the prompt's state crosses: auto (the artifact's codec; where both servers run the same model also raw or "
      "lossless, whatever gives the first token earliest at the bandwidth reached; without an artifact no bit is "
      "changed), raw (BF16 keys and values), lossless (the same bits, entropy-coded), int8 or int4 (quantised), scd "
      "(Reuse and Patch), rd (rate-distortion codes), kvtc (transform codes of the "
      "producer's own cache), droidspeak (raw, a span of layers recomputed), lora_delta (raw and the adapter's own "
      "term), or not at all (oracle: the decode server computes the prompt).");
  at.path("artifact", codec.artifact,
          "Directory that scd calibrate wrote; needed for scd, rd, kvtc, droidspeak and lora_delta.");
  at.number("level", codec.level, {-1, 15},
            "Of rd and kvtc: 0 is the finest; auto then keeps to the artifact's codec. -1: the coarsest that meets "
            "max_kl, or "
            "the middle one where max_kl is 0.");
  at.milliseconds(
      "ttft_target_ms", codec.ttft_target, {0, 3600000},
      "Time that codes may take on the wire: with level -1 the finest level that max_kl allows and that crosses "
      "the link in it, by the bandwidth transfers have reached; the coarsest where none does. 0: no target.");
  at.section("rank", codec.rank, "Caps on what is sent of the calibrated components.");
  at.number(
      "max_kl", codec.max_kl, {0, 100},
      "Largest KL on answers that is taken, nats: a level's 95 % bound on the held-out text of calibration counts; an "
      "artifact without such a level is refused. 0: any.");
  at.number(
      "max_native_share", codec.max_native_share, {0, 1},
      "Largest share of its layers that an artifact may have this server run over the prefix; one that wants more "
      "is refused.");
  at.flag("exact_layer0", codec.exact_layer0,
          "Compute layer 0 from the token ids instead of having it sent; rd and kvtc say themselves which layers.");
  at.number("sinks", codec.sinks, {0, 1024},
            "First tokens of the prompt that are computed here, not sent; a multiple of 16.");
  at.number("suffix_tokens", codec.suffix_tokens, {1, 4096},
            "Last tokens of the prompt that are computed here over the rebuilt prefix, at least.");
}

void describe(ConfigVisitor& at, KvCacheOptions& cache) {
  at.number("pages", cache.pages, {8, 1 << 24}, "Pages of 16 tokens, shared by all requests; on the CPU.");
  at.number(
      "gpu_memory_fraction", cache.gpu_memory_fraction, {0.0, 1.0},
      "On a GPU: as many pages as let weights, pages and workspaces take this share of its memory (two servers fit on "
      "one by default); 0: `pages` of them.");
}

void describe(ConfigVisitor& at, TlsOptions& tls) {
  at.path("certificate", tls.certificate, "PEM file; with a key it switches TLS on. Empty: no TLS.");
  at.path("key", tls.key, "PEM file.");
  at.path("ca", tls.ca, "PEM file; peers must show a certificate signed by it.");
}

void describe(ConfigVisitor& at, GrpcOptions& grpc) {
  at.text("listen", grpc.listen,
          "host:port of the gRPC service; port 0: the kernel chooses (see the log line "
          "'listening', or --port-file).");
  at.milliseconds("keepalive_ms", grpc.keepalive, {100, 7200000}, "Ping idle connections this often.");
  at.milliseconds("keepalive_timeout_ms", grpc.keepalive_timeout, {100, 600000},
                  "Connections without an answer for this long are closed.");
  at.number("max_message_bytes", grpc.max_message_bytes, {1024, 1 << 30}, "Longest message accepted.");
  at.section("tls", grpc.tls, "TLS of the gRPC connections.");
}

void describe(ConfigVisitor& at, LogOptions& log) {
  at.choice("level", log.level,
            {{"trace", LogLevel::kTrace},
             {"debug", LogLevel::kDebug},
             {"info", LogLevel::kInfo},
             {"warning", LogLevel::kWarning},
             {"error", LogLevel::kError}},
            "Least important events shown.");
  at.choice("format", log.format, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, "Of a line.");
}

void describe(ConfigVisitor& at, MetricsOptions& metrics) {
  at.text(
      "listen", metrics.listen,
      "host:port of the HTTP endpoint /metrics that Prometheus scrapes; port 0: the kernel chooses (see the log line "
      "'metrics'). Empty: off.");
}

void describe(ConfigVisitor& at, TransportOptions& transport) {
  at.choice("kind", transport.kind, {{"ucx", TransportKind::kUcx}, {"loopback", TransportKind::kLoopback}},
            "ucx between processes; loopback works within one process only (tests).");
  at.text("listen_host", transport.listen_host, "Address the data plane listens on.");
  at.number("port_first", transport.port_first, {0, 65535}, "First port to try; 0: the kernel chooses.");
  at.number("port_last", transport.port_last, {0, 65535}, "Last port to try; 0: port_first only.");
  at.text("advertise", transport.advertise,
          "What peers are told to connect to, host or host:port; empty: the bound address.");
  at.text("transports", transport.transports,
          "UCX transports to choose from, as in UCX_TLS (\"tcp\", \"rc,ud,self\"); empty: UCX chooses.");
  at.choice("require", transport.require, {{"any", TransportRequirement::kAny}, {"rdma", TransportRequirement::kRdma}},
            "Refuse peers that are reached over anything less.");
  at.milliseconds("peer_timeout_ms", transport.peer_timeout, {100, 600000},
                  "A peer without progress for this long is failed.");
  at.number("slot_bytes", transport.slot_bytes, {4096, int64_t{1} << 30}, "Largest payload received.");
  at.number("slots", transport.slots, {1, 1 << 20}, "Staging slots, shared by all requests.");
  at.number("send_queue", transport.send_queue, {1, 1 << 20}, "Messages that may wait to be sent.");
  at.number("sends_in_flight", transport.sends_in_flight, {1, 4096},
            "Messages handed to the network at once, per peer.");
  at.number("bytes_in_flight", transport.bytes_in_flight, {4096, int64_t{1} << 30},
            "Bytes handed to the network at once, per peer; two messages always may be.");
}

void describe_device(ConfigVisitor& at, std::string& device) {
  const std::initializer_list<std::pair<std::string_view, std::string>> devices{
      {"cpu", "cpu"},       {"cuda:0", "cuda:0"}, {"cuda:1", "cuda:1"}, {"cuda:2", "cuda:2"}, {"cuda:3", "cuda:3"},
      {"cuda:4", "cuda:4"}, {"cuda:5", "cuda:5"}, {"cuda:6", "cuda:6"}, {"cuda:7", "cuda:7"}};
  at.choice("device", device, devices, "Where the model runs: cpu, or a GPU of this machine.");
}

void describe_threads(ConfigVisitor& at, int32_t& threads) {
  at.number("threads", threads, {0, 1024}, "Threads that compute; 0: as many as the process may use cores.");
}

void check_host_port(const std::string& key, const std::string& value) {
  if (is_host_port(value)) return;
  throw Error(ErrorCode::kInvalidArgument, key + ": '" + value + "' is not host:port, for example 127.0.0.1:50052");
}

void check_metrics(const MetricsOptions& metrics) {
  if (!metrics.listen.empty()) check_host_port("metrics.listen", metrics.listen);
}

void check_exists(const std::string& key, const std::filesystem::path& path) {
  std::error_code ignored;
  if (path.empty() || std::filesystem::exists(path, ignored)) return;
  throw Error(ErrorCode::kNotFound, key + ": " + path.string() + " is not there or not readable");
}

void check_files(const ModelOptions& model, const std::filesystem::path& artifact, const TlsOptions& tls) {
  check_exists("model.directory", model.directory);
  check_exists("model.directory", model.directory / "config.json");
  if (!model.adapter.empty()) check_exists("model.adapter", model.adapter / "adapter_config.json");
  check_exists("codec.artifact", artifact);
  check_exists("grpc.tls.certificate", tls.certificate);
  check_exists("grpc.tls.key", tls.key);
  check_exists("grpc.tls.ca", tls.ca);
  if (tls.certificate.empty() != tls.key.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "grpc.tls.certificate and grpc.tls.key go together; only one is set");
  }
}

void check_for_daemon(const TransportOptions& transport) {
  if (transport.kind != TransportKind::kUcx) {
    throw Error(ErrorCode::kInvalidArgument, "transport.kind: loopback connects servers of one process only; use ucx");
  }
  check_addresses(transport);
}

}  // namespace scd
