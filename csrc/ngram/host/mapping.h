// csrc/ngram/host/mapping.h: the files of an index in one range of addresses, so that all shards
// are one tensor.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lmx::ngram {
struct Piece {
  std::string path;
  int64_t offset;  // of the payload in the file; a multiple of the page size
  int64_t bytes;
};

// Each piece begins at a page boundary; what lies between is zero. Memory is given back when the
// object goes.
class Mapping {
 public:
  // In memory (`ram`) the files are read; else they are mapped, shared and read-only, with the
  // kernel told that accesses are random. Throws std::runtime_error where a file is shorter than
  // its piece or cannot be read.
  Mapping(const std::vector<Piece>& pieces, bool ram);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* data() const { return base_; }
  int64_t size() const { return size_; }
  const std::vector<int64_t>& offsets() const { return offsets_; }  // of the pieces, in bytes

 private:
  void take(const Piece& piece, char* to, bool ram);
  void* base_ = nullptr;
  int64_t size_ = 0;
  std::vector<int64_t> offsets_;
};

// Two folders take each other's name at once; false where the file system cannot.
bool exchange_names(const std::string& a, const std::string& b);
}  // namespace lmx::ngram
