// csrc/ngram/host/mapping.cpp
#include "mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace lmx::ngram {
namespace {
constexpr int64_t kPage = 4096, kHugePage = 2 << 20;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw std::runtime_error(path + ": " + what);
}

struct File {
  int fd;
  explicit File(const std::string& path) : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) fail(path, std::strerror(errno));
  }
  ~File() { close(fd); }
};
}  // namespace

Mapping::Mapping(const std::vector<Piece>& pieces, bool ram) {
  for (const Piece& piece : pieces) {
    offsets_.push_back(size_);
    size_ += round_up(piece.bytes, kPage);
  }
  if (size_ == 0) return;
  void* base = mmap(nullptr, static_cast<size_t>(size_), ram ? PROT_READ | PROT_WRITE : PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | (ram ? 0 : MAP_NORESERVE), -1, 0);
  if (base == MAP_FAILED)
    throw std::runtime_error("cannot reserve " + std::to_string(size_) +
                             " bytes: " + std::strerror(errno));
  base_ = base;
  if (ram && size_ >= kHugePage) madvise(base_, static_cast<size_t>(size_), MADV_HUGEPAGE);
  try {
    for (size_t i = 0; i < pieces.size(); ++i)
      if (pieces[i].bytes > 0) take(pieces[i], static_cast<char*>(base_) + offsets_[i], ram);
  } catch (...) {
    munmap(base_, static_cast<size_t>(size_));
    throw;
  }
  if (ram) mprotect(base_, static_cast<size_t>(size_), PROT_READ);
}

Mapping::~Mapping() {
  if (base_) munmap(base_, static_cast<size_t>(size_));
}

void Mapping::take(const Piece& piece, char* to, bool ram) {
  const File file(piece.path);
  struct stat facts{};
  if (fstat(file.fd, &facts) != 0) fail(piece.path, std::strerror(errno));
  if (!S_ISREG(facts.st_mode) || facts.st_size < piece.offset + piece.bytes)
    fail(piece.path, "expected " + std::to_string(piece.offset + piece.bytes) + " bytes, got " +
                         std::to_string(facts.st_size));
  if (!ram) {
    void* at = mmap(to, static_cast<size_t>(piece.bytes), PROT_READ, MAP_SHARED | MAP_FIXED,
                    file.fd, piece.offset);
    if (at == MAP_FAILED) fail(piece.path, std::strerror(errno));
    madvise(at, static_cast<size_t>(piece.bytes), MADV_RANDOM);
    return;
  }
  for (int64_t done = 0; done < piece.bytes;) {
    const auto want = static_cast<size_t>(std::min<int64_t>(piece.bytes - done, 64 << 20));
    const ssize_t got = pread(file.fd, to + done, want, piece.offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail(piece.path, got < 0 ? std::strerror(errno) : "the file became shorter");
    done += got;
  }
}

bool exchange_names(const std::string& a, const std::string& b) {
  constexpr unsigned kExchange = 2;  // RENAME_EXCHANGE of linux/fs.h
  return syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kExchange) == 0;
}
}  // namespace lmx::ngram
