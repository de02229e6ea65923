// common/pool.cpp
#include "pool.h"

#include <pthread.h>

#include <stdexcept>
#include <string>

namespace lmx {
void Task::run() {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::waiting) return;
    state_ = State::running;
  }
  std::exception_ptr error;
  try {
    work_();
  } catch (...) {
    error = std::current_exception();
  }
  work_ = nullptr;  // what it captured is released before wait() returns
  const std::lock_guard lock(mutex_);
  error_ = error;
  state_ = State::done;
  ended_.notify_all();
}

void Task::wait() {
  run();  // a full pool must not make the waiter idle
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return state_ == State::done; });
  if (error_) std::rethrow_exception(error_);
}

bool Task::done() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::done;
}

Pool::Pool(int num_threads) { grow(num_threads); }

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  more_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Pool::grow(int num_threads) {
  if (num_threads < 1 || num_threads > 1024)
    throw std::invalid_argument("lmx: expected num_threads in [1, 1024], got " +
                                std::to_string(num_threads));
  const std::lock_guard lock(mutex_);
  while (static_cast<int>(threads_.size()) < num_threads)
    threads_.emplace_back([this] { serve(); });
}

void Pool::serve() {
  while (true) {
    std::shared_ptr<Task> task;
    {
      std::unique_lock lock(mutex_);
      more_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task->run();
  }
}

int Pool::num_threads() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(threads_.size());
}

std::shared_ptr<Task> Pool::submit(std::function<void()> work) {
  auto task = std::make_shared<Task>(std::move(work));
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(task);
  }
  more_.notify_one();
  return task;
}

namespace {
// Never destroyed: joining threads while the process exits may wait for work that waits for Python.
struct Shared {
  std::mutex mutex;
  Pool* pool = nullptr;
};
Shared* shared_pool = nullptr;
}  // namespace

Pool& Pool::shared(int num_threads) {
  static const bool once = [] {
    shared_pool = new Shared;
    // In a child the parent's threads do not exist, and its mutex may have been held: both are
    // left.
    pthread_atfork(nullptr, nullptr, [] { shared_pool = new Shared; });
    return true;
  }();
  static_cast<void>(once);
  const std::lock_guard lock(shared_pool->mutex);
  if (shared_pool->pool)
    shared_pool->pool->grow(num_threads);
  else
    shared_pool->pool = new Pool(num_threads);
  return *shared_pool->pool;
}
}  // namespace lmx
