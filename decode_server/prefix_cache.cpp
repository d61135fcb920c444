#include "decode_server/prefix_cache.h"

#include <algorithm>
#include <atomic>

#include "common/base/check.h"

namespace scd {
PrefixCache::PrefixCache(PagePool& pool, int32_t max_pages) : pool_(pool), max_pages_(max_pages) {
  SCD_CHECK(pool.page_tokens() == kBlock, "a block is a page");
  pool_.set_keeper(this);
}

PrefixCache::~PrefixCache() {
  std::scoped_lock lock(mutex_);
  while (!uses_.empty()) {
    Node* node = uses_.back();
    while (!node->children.empty()) node = node->children.begin()->second.back().get();
    remove(*node, nullptr);
  }
  pool_.set_keeper(nullptr);
}

PrefixCache::Found PrefixCache::find(const Wanted& wanted, PageTable& table) {
  SCD_CHECK(table.page_ids().empty(), "a prefix begins a table");
  std::scoped_lock lock(mutex_);
  const auto root = roots_.find({wanted.space, wanted.salt});
  if (root == roots_.end()) return {};
  // Each of them spells the same tokens.
  std::vector<Node*> reached{&root->second}, further;
  Block block;
  for (int64_t first = 0; first + kBlock <= std::ssize(wanted.tokens); first += kBlock) {
    std::copy_n(wanted.tokens.begin() + first, kBlock, block.begin());
    further.clear();
    for (Node* node : reached) {
      const auto children = node->children.find(block);
      if (children == node->children.end()) continue;
      for (const auto& child : children->second) {
        if (good_enough(child->origin, wanted.origin)) further.push_back(child.get());
      }
    }
    if (further.empty()) break;
    reached.swap(further);
  }
  Node* best = *std::ranges::min_element(
      reached, {}, [](const Node* node) { return node->origin.exact() ? -1 : node->origin.codec->rank.level; });
  if (best->parent == nullptr) return {};
  touch(*best);
  std::vector<int32_t> pages;
  for (const Node* node = best; node->parent != nullptr; node = node->parent) pages.push_back(node->page);
  for (size_t i = pages.size(); i-- > 0;) table.share(pages[i]);
  return {.tokens = std::ssize(pages) * kBlock, .origin = best->origin};
}

void PrefixCache::count(int64_t looked_up, int64_t found) {
  std::scoped_lock lock(mutex_);
  counters_.looked_up += static_cast<uint64_t>(looked_up);
  counters_.found += static_cast<uint64_t>(found);
}

void PrefixCache::insert(const Made& made, PageTable& table) {
  const int64_t blocks = std::min(std::ssize(made.tokens) / kBlock, std::ssize(table.page_ids()));
  if (max_pages_ == 0 || blocks == 0) return;
  std::scoped_lock lock(mutex_);
  Node* const root = &roots_[{made.space, made.salt}];
  Node* node = root;
  auto run = made.runs.begin();
  Block block;
  for (int64_t i = 0; i < blocks; ++i) {
    std::copy_n(made.tokens.begin() + i * kBlock, kBlock, block.begin());
    while (run + 1 < made.runs.end() && run[1].first_token <= i * kBlock) ++run;
    const int32_t own = table.page_ids()[static_cast<size_t>(i)];
    Node* next = nullptr;
    if (const auto there = node->children.find(block); there != node->children.end()) {
      for (const auto& child : there->second) {
        if (child->page == own || (next == nullptr && run < made.runs.end() && child->origin == run->origin)) {
          next = child.get();
        }
      }
    }
    if (next == nullptr) {
      SCD_CHECK(run < made.runs.end() && run->first_token <= i * kBlock, "each new page has an origin");
      if (counters_.pages >= max_pages_ && evict(1, root) == 0) break;
      next = add(*node, block, run->origin, own);
    } else if (next->page != own) {
      table.exchange(static_cast<size_t>(i), next->page);
    }
    node = next;
  }
  touch(*node);
  if (root->children.empty()) roots_.erase({made.space, made.salt});
}

PrefixCache::Node* PrefixCache::add(Node& parent, const Block& block, const PageOrigin& origin, int32_t page) {
  pool_.keep(page);
  const auto place = parent.children.try_emplace(block).first;
  Node& node = *place->second.emplace_back(std::make_unique<Node>());
  node.parent = &parent;
  node.place = place;
  node.page = page;
  node.origin = origin;
  uses_.push_front(&node);
  node.use = uses_.begin();
  ++counters_.pages;
  return &node;
}

// A node and all before it, which end up in front.
void PrefixCache::touch(Node& last) {
  for (Node* node = &last; node->parent != nullptr; node = node->parent) uses_.splice(uses_.begin(), uses_, node->use);
}

void PrefixCache::remove(Node& node, const Node* busy) {
  SCD_CHECK(node.children.empty(), "prefixes go from their ends");
  pool_.let_go(node.page);
  uses_.erase(node.use);
  --counters_.pages;
  Node& parent = *node.parent;
  const auto place = node.place;
  std::erase_if(place->second, [&](const auto& child) { return child.get() == &node; });
  if (place->second.empty()) parent.children.erase(place);
  if (parent.parent != nullptr || !parent.children.empty() || &parent == busy) return;
  std::erase_if(roots_, [&](const auto& root) { return &root.second == &parent; });
}

// Who uses a page uses all before it, so a page without users has none behind it either: only the order of use may have
// been lost since, where pages in use were passed over.
int32_t PrefixCache::evict(int32_t pages, const Node* busy) {
  int32_t evicted = 0;
  for (size_t left = uses_.size(); left > 0 && evicted < pages; --left) {
    Node& oldest = *uses_.back();
    if (!oldest.children.empty() || !pool_.idle(oldest.page)) {
      uses_.splice(uses_.begin(), uses_, oldest.use);
      continue;
    }
    remove(oldest, busy);
    ++evicted;
  }
  counters_.evicted_pages += static_cast<uint64_t>(evicted);
  return evicted;
}

void PrefixCache::forget(uint64_t space) {
  std::scoped_lock lock(mutex_);
  for (auto root = roots_.lower_bound({space, {}}); root != roots_.end() && root->first.first == space;) {
    Node& top = root->second;
    while (!top.children.empty()) {
      Node* node = &top;
      while (!node->children.empty()) node = node->children.begin()->second.back().get();
      remove(*node, &top);
    }
    root = roots_.erase(root);
  }
}

int32_t PrefixCache::give_back(int32_t pages) {
  std::scoped_lock lock(mutex_);
  return evict(pages);
}

int32_t PrefixCache::clear() {
  std::scoped_lock lock(mutex_);
  int32_t all = 0;
  while (const int32_t evicted = evict(counters_.pages)) all += evicted;
  return all;
}

PrefixCacheCounters PrefixCache::counters() const {
  std::scoped_lock lock(mutex_);
  return counters_;
}

PrefixSpace::PrefixSpace(PrefixCache& cache)
    : cache_(cache), id_([] {
        static std::atomic<uint64_t> last{0};  // relaxed: only uniqueness matters
        return last.fetch_add(1, std::memory_order_relaxed) + 1;
      }()) {}

}  // namespace scd
