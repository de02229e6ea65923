// common/pool.h: the one native thread pool, for asynchronous host work (grammar masks filled while
// the model runs, index builds). Kernels use parallel.h instead: they end before the op returns.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace lmx {
// Set by whoever waits, read by the work: long work looks at it every few milliseconds and returns.
class CancelFlag {
 public:
  void cancel() { set_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return set_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> set_{false};
};

// A piece of work in the pool. wait() blocks, takes the work over itself if no thread has begun it,
// and throws what the work threw.
class Task {
 public:
  explicit Task(std::function<void()> work) : work_(std::move(work)) {}
  void run();  // at most one caller runs the work
  void wait();
  bool done() const;

 private:
  enum class State { waiting, running, done };
  std::function<void()> work_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  State state_ = State::waiting;
  std::exception_ptr error_;
};

class Pool {
 public:
  explicit Pool(int num_threads);
  ~Pool();  // ends queued work first
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  std::shared_ptr<Task> submit(std::function<void()> work);
  int num_threads() const;

  // The pool all rooms share, with at least num_threads threads; made at first use, and anew in a
  // forked child, whose parent's threads do not exist there.
  static Pool& shared(int num_threads = 1);

 private:
  void grow(int num_threads);
  void serve();
  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::deque<std::shared_ptr<Task>> queue_;
  std::vector<std::thread> threads_;
  bool stop_ = false;
};
}  // namespace lmx
