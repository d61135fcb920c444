#include "decode_server/receive/endpoint_pool.h"

#include <algorithm>
#include <utility>

#include "common/log/log.h"
#include "common/rpc/channel.h"

namespace scd {
namespace {

constexpr size_t kMostPeers = 1024;
constexpr std::chrono::seconds kInfoHolds{5};
constexpr uint64_t kMostQueuedTokens = uint64_t{1} << 40;  // what a peer says is not believed beyond this

std::vector<std::string> names_of(const std::vector<std::string>& endpoints) {
  std::vector<std::string> names;
  std::ranges::copy_if(endpoints, std::back_inserter(names), is_name);
  return names;
}

}  // namespace

EndpointPool::EndpointPool(const PrefillOptions& options, const GrpcOptions& grpc, LookUp look_up)
    : options_(options),
      grpc_(grpc),
      chooser_(options),
      health_([this](PeerId peer, const Result<Done>& health) { checked(peer, health); }),
      discovery_({.names = names_of(options.endpoints),
                  .every = options.resolve_every,
                  .look_up = std::move(look_up),
                  .on_result = [this](const std::string& name, const auto& addresses) { found(name, addresses); }}) {
  if (!options.endpoints.empty()) (void)make_channel(options.endpoints.front(), grpc);  // TLS files that cannot be read
  for (const std::string& endpoint : options.endpoints) {
    if (!is_name(endpoint)) found(endpoint, std::vector{endpoint});
  }
}

EndpointPool::Wanted EndpointPool::wanted() const {
  Wanted wanted;
  for (const auto& [endpoint, addresses] : addresses_) {
    for (const std::string& address : addresses) {
      if (wanted.size() < kMostPeers) wanted.emplace(address, is_name(endpoint) ? host_of(endpoint) : "");
    }
  }
  return wanted;
}

// A name that cannot be looked up keeps the addresses it had.
void EndpointPool::found(const std::string& endpoint, const Result<std::vector<std::string>>& addresses) {
  std::scoped_lock lock(mutex_);
  if (!addresses) {
    if (unknown_.emplace(endpoint, addresses.failure()).second) {
      log_warning("prefill_server_unknown", {{"endpoint", endpoint}, {"reason", addresses.failure().message}});
    }
    return;
  }
  unknown_.erase(endpoint);
  if (addresses_[endpoint] == addresses.value()) return;
  addresses_[endpoint] = addresses.value();
  Wanted missing = wanted();
  std::vector<PeerId> superfluous;
  for (const auto& [peer, known] : endpoints_) {
    if (missing.erase(known.address) == 0) {
      superfluous.push_back(peer);
    } else {
      chooser_.undrain(peer);
    }
  }
  for (const PeerId peer : superfluous) remove(peer);
  for (const auto& [address, server_name] : missing) add(address, server_name);
}

void EndpointPool::add(const std::string& address, const std::string& server_name) {
  Endpoint endpoint;
  endpoint.address = address;
  try {
    endpoint.channel = make_channel(address, grpc_, server_name);
  } catch (const Error& error) {  // the files were there when the server started
    return log_warning("prefill_server_not_added", {{"endpoint", address}, {"reason", error.what()}});
  }
  endpoint.stub = v1::PrefillService::NewStub(endpoint.channel);
  endpoints_.emplace(chooser_.add(), std::move(endpoint));
  log_info("prefill_server_added", {{"endpoint", address}, {"name", server_name}});
}

void EndpointPool::remove(PeerId peer) {
  log_info("prefill_server_removed", {{"endpoint", endpoints_.at(peer).address}});
  chooser_.drain(peer);
  if (chooser_.gone(peer)) endpoints_.erase(peer);
}

EndpointPool::Time EndpointPool::watch() {
  if (options_.health_every.count() == 0) return Time::max();
  const auto now = ServingClock::now();
  std::vector<std::pair<PeerId, std::shared_ptr<grpc::Channel>>> due;
  Time next = now + options_.health_every;
  {
    std::scoped_lock lock(mutex_);
    for (auto& [peer, endpoint] : endpoints_) {
      if (endpoint.check_at <= now) {
        endpoint.check_at = now + options_.health_every;
        due.emplace_back(peer, endpoint.channel);
      }
      next = std::min(next, endpoint.check_at);
    }
  }
  for (const auto& [peer, channel] : due) health_.begin(peer, channel, options_.health_every);
  return next;
}

void EndpointPool::checked(PeerId peer, const Result<Done>& health) {
  std::scoped_lock lock(mutex_);
  const auto at = endpoints_.find(peer);
  if (at == endpoints_.end()) return;
  Endpoint& endpoint = at->second;
  const bool was_well = !endpoint.illness.has_value();
  endpoint.illness = health ? std::nullopt : std::optional(health.failure());
  const auto state = chooser_.state(peer, ServingClock::now());
  const bool is_newer = endpoint.check_at - options_.health_every >= endpoint.failed_at;
  if (health && is_newer && state && !state->ejected) endpoint.failure.reset();
  if (health.ok() == was_well) return;
  if (health) {
    log_info("prefill_server_healthy", {{"endpoint", endpoint.address}});
  } else {
    endpoint.info.reset();
    log_warning("prefill_server_unhealthy", {{"endpoint", endpoint.address}, {"reason", health.failure().message}});
  }
}

bool EndpointPool::reachable(const Endpoint& endpoint) {
  const grpc_connectivity_state state = endpoint.channel->GetState(/*try_to_connect=*/true);
  return state != GRPC_CHANNEL_TRANSIENT_FAILURE && state != GRPC_CHANNEL_SHUTDOWN && !endpoint.illness;
}

void EndpointPool::look_at_channels() {
  for (const auto& [peer, endpoint] : endpoints_) chooser_.set_up(peer, reachable(endpoint));
}

std::vector<EndpointPool::Peer> EndpointPool::peers() const {
  std::scoped_lock lock(mutex_);
  std::vector<Peer> peers;
  for (const auto& [peer, endpoint] : endpoints_) peers.push_back({{.peer = peer}, endpoint.address, endpoint.stub});
  return peers;
}

std::optional<EndpointPool::Peer> EndpointPool::acquire(const PeerQuestion& question) {
  std::optional<Peer> acquired;
  {
    std::scoped_lock lock(mutex_);
    look_at_channels();
    if (const auto choice = chooser_.choose(question, ServingClock::now())) {
      const Endpoint& endpoint = endpoints_.at(choice->peer);
      acquired = Peer{*choice, endpoint.address, endpoint.stub};
    }
  }
  if (!acquired || acquired->choice.reason == ChoiceReason::kFailing) discovery_.look_soon();
  return acquired;
}

void EndpointPool::release(const Peer& peer) {
  std::scoped_lock lock(mutex_);
  chooser_.ended(peer.choice);
  if (chooser_.gone(peer.id())) endpoints_.erase(peer.id());
}

void EndpointPool::succeeded(const Peer& peer, const std::string& lanes) {
  std::scoped_lock lock(mutex_);
  chooser_.succeeded(peer.id(), ServingClock::now());
  const auto at = endpoints_.find(peer.id());
  if (at == endpoints_.end()) return;
  at->second.failure.reset();
  at->second.lanes = lanes;
}

bool EndpointPool::failed(const Peer& peer, const Failure& failure) {
  std::scoped_lock lock(mutex_);
  const auto at = endpoints_.find(peer.id());
  if (at == endpoints_.end()) return false;
  at->second.failure = failure;
  at->second.failed_at = ServingClock::now();
  at->second.info.reset();
  const bool ejected = chooser_.failed(peer.id(), ServingClock::now());
  if (ejected) log_warning("prefill_server_ejected", {{"endpoint", peer.address}, {"reason", failure.message}});
  return ejected;
}

void EndpointPool::forget_info(const Peer& peer) {
  std::scoped_lock lock(mutex_);
  if (const auto at = endpoints_.find(peer.id()); at != endpoints_.end()) at->second.info.reset();
}

void EndpointPool::accepted(const Peer& peer, std::span<const uint64_t> blocks, uint64_t queued_tokens) {
  std::scoped_lock lock(mutex_);
  chooser_.remember(peer.id(), blocks);
  chooser_.reported(peer.choice, static_cast<int64_t>(std::min(queued_tokens, kMostQueuedTokens)), ServingClock::now());
}

Failure EndpointPool::nobody() const {
  std::scoped_lock lock(mutex_);
  if (!unknown_.empty()) return unknown_.begin()->second;
  return {ErrorCode::kUnavailable, "no prefill server is known yet: prefill.endpoints are being looked up"};
}

std::shared_ptr<const v1::GetProducerInfoResponse> EndpointPool::info(const Peer& peer) const {
  std::scoped_lock lock(mutex_);
  const auto at = endpoints_.find(peer.id());
  return at == endpoints_.end() ? nullptr : at->second.info;
}

void EndpointPool::set_info(const Peer& peer, const v1::GetProducerInfoResponse& info) {
  auto copy = std::make_shared<const v1::GetProducerInfoResponse>(info);
  std::scoped_lock lock(mutex_);
  const auto at = endpoints_.find(peer.id());
  if (at == endpoints_.end()) return;
  at->second.info = std::move(copy);
  at->second.info_at = ServingClock::now();
}

std::vector<EndpointPool::Known> EndpointPool::known() const {
  std::scoped_lock lock(mutex_);
  std::vector<Known> known;
  for (const auto& [peer, endpoint] : endpoints_) {
    if (endpoint.info == nullptr) continue;
    known.push_back({.peer = {{.peer = peer}, endpoint.address, endpoint.stub}, .info = endpoint.info});
  }
  return known;
}

bool EndpointPool::info_is_old(const Peer& peer) {
  const auto now = ServingClock::now();
  std::scoped_lock lock(mutex_);
  const auto at = endpoints_.find(peer.id());
  if (at == endpoints_.end() || now - at->second.info_at < kInfoHolds) return false;
  at->second.info_at = now;
  return true;
}

std::vector<EndpointFacts> EndpointPool::reports() const {
  const auto now = ServingClock::now();
  std::scoped_lock lock(mutex_);
  std::vector<EndpointFacts> reports;
  for (const auto& [peer, endpoint] : endpoints_) {
    const PeerState state = chooser_.state(peer, now).value_or(PeerState{});
    const bool is_reachable = reachable(endpoint);
    const auto& reason = endpoint.failure ? endpoint.failure : endpoint.illness;
    reports.push_back({.address = endpoint.address,
                       .healthy = is_reachable && !state.ejected && !endpoint.failure,
                       .reason = reason         ? reason->message
                                 : is_reachable ? ""
                                                : "cannot be reached",
                       .lanes = endpoint.lanes,
                       .ejected = state.ejected,
                       .draining = state.draining,
                       .tokens = state.tokens});
  }
  for (const auto& [endpoint, failure] : unknown_) {
    if (!addresses_.contains(endpoint)) reports.push_back({.address = endpoint, .reason = failure.message});
  }
  return reports;
}

}  // namespace scd
