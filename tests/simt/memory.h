// tests/simt/memory.h: who touched which byte last, private to the harness's .cpp files.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "harness.h"

namespace simt {

constexpr int kWarpSize = 32, kMaxThreads = 1024;
constexpr size_t kMaxShared = 99 << 10;  // per block, on the GPUs that have least (sm_86, sm_89)
constexpr size_t kStackBytes = 128 << 10;

struct Fiber;

// The threads that did something last. If several did, without order between them, they are lanes
// of one warp, or it is only known that there were several.
struct Who {
  static constexpr uint8_t kSeveralWarps = 0xff;
  uint32_t time, lanes;
  uint8_t warp;
  bool elsewhere;  // another block of the same launch did so too
  bool atomic;     // the write was
  bool pending;    // the write is a cp.async that has not been waited for
};

struct Byte {
  Who write, read;
};
static_assert(sizeof(Byte) == 24);  // no padding: bytes are compared as memory

// Time is a counter that each ordering event (launch, block, barrier, __syncwarp) moves on, so a
// stamp tells what is ordered before it and in which block of which launch it was made.
class Memory {
 public:
  void expose(const void* begin, size_t bytes, bool writable, bool fresh);
  void clear_exposed();

  void begin_launch();
  void begin_block(size_t shared_bytes);
  void block_barrier() { barrier_time_ = ++now_; }
  uint32_t tick() { return ++now_; }

  // Fails unless the running fiber may do this.
  void check(const Fiber& me, const void* p, size_t bytes, Access access, Site site);
  bool is_shared(const void* p) const;
  void set_pending(const void* p, size_t bytes, bool pending);
  char* shared() { return shared_; }
  size_t shared_bytes() const { return shared_bytes_; }

 private:
  struct Tensor {  // an exposed range
    uintptr_t begin, end;
    bool writable, fresh;
  };
  struct Free {
    void operator()(Byte* p) const { std::free(p); }
  };
  struct Shadow {  // the bytes of one tensor, or of several that overlap
    uintptr_t begin, end;
    std::unique_ptr<Byte[], Free> bytes;
  };
  // A piece of memory during one check, and what error messages call it.
  struct Place {
    const char* kind;
    int tensor;  // its number; -1 in shared memory
    size_t offset;
    Byte* bytes;
    uint32_t blank_since;     // stamps older than this do not count
    uint32_t readable_since;  // a byte whose last write is older holds nothing yet
  };
  enum class Fault {
    none,
    input,
    pending,
    unwritten,
    not_constant,
    race_with_write,
    race_with_read
  };

  void check_global(const Fiber& me, uintptr_t a, size_t bytes, Access access, Site site);
  void check_bytes(const Fiber& me, const Place& place, size_t bytes, Access access, Site site);
  Fault judge(const Fiber& me, const Place& place, const Byte& b, Access access) const;
  void record(const Fiber& me, const Place& place, Byte& b, Access access) const;
  void join(const Fiber& me, const Place& place, Who& who) const;
  bool ordered(const Fiber& me, const Who& who) const;
  bool ordered_in_block(const Fiber& me, const Who& who) const;
  [[noreturn]] void complain(const Place& place, size_t i, Access access, Fault fault,
                             Site site) const;
  const Tensor* find(uintptr_t a, size_t bytes, bool writable);
  Byte* shadow_of(uintptr_t a);
  [[noreturn]] void complain_outside(uintptr_t a, size_t bytes, Site site) const;

  uint32_t now_ = 1, launch_time_ = 1, block_time_ = 1, barrier_time_ = 1;
  size_t shared_bytes_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<Shadow> shadows_;
  size_t last_tensor_ = 0, last_shadow_ = 0;
  alignas(128) char shared_[kMaxShared];
  Byte shared_shadow_[kMaxShared] = {};
};

}  // namespace simt
