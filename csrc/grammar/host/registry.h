// grammar/host/registry.h: matchers by number, for operators.
//
// A handle is a slot and how often the slot was used: that of a matcher that is gone is an error,
// never another matcher.
#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace lmx::grammar {
class Matcher;

class Registry {
 public:
  static Registry& instance() {
    static Registry registry;
    return registry;
  }
  int64_t add(Matcher* matcher) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      free_.push_back(slots_.size());
      slots_.push_back({});
    }
    const size_t i = free_.back();
    free_.pop_back();
    slots_[i].matcher = matcher;
    return static_cast<int64_t>(++slots_[i].uses << 32 | i);
  }
  void remove(int64_t handle) {
    const std::lock_guard lock(mutex_);
    const size_t i = handle & 0xFFFFFFFF;
    slots_[i].matcher = nullptr;
    free_.push_back(i);
  }
  Matcher* find(int64_t handle) {  // null where there is none
    const std::lock_guard lock(mutex_);
    const size_t i = handle & 0xFFFFFFFF;
    const auto uses = static_cast<uint64_t>(handle) >> 32;
    return i < slots_.size() && slots_[i].uses == uses ? slots_[i].matcher : nullptr;
  }

 private:
  struct Slot {
    Matcher* matcher = nullptr;
    uint64_t uses = 0;
  };
  std::mutex mutex_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
};
}  // namespace lmx::grammar
