#include "kernels/staged_copy.h"

#include <algorithm>
#include <array>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/device.h"

namespace scd::kernels::cuda {
namespace {

constexpr size_t kPieceBytes = size_t{16} << 20;
constexpr size_t kDenseRowBytes = size_t{64} << 10;  // of what has no rows of its own

// Page-locked memory of one piece, and whether what the GPU does with it is done.
class Turn {
 public:
  Turn() { check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate"); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    cudaEventSynchronize(done_);
    cudaEventDestroy(done_);
  }
  std::byte* memory(size_t bytes) {
    return static_cast<std::byte*>(
        memory_.matrix(1, static_cast<int64_t>(bytes / sizeof(float)) + 1, DType::kF32).data);
  }
  void queue(ConstByteRows from, ByteRows to, RowSizes sizes, cudaMemcpyKind kind) {
    check(cudaMemcpy2DAsync(to.data, to.pitch, from.data, from.pitch, sizes.row_bytes, sizes.rows, kind, stream()),
          "copy");
    check(cudaEventRecord(done_, stream()), "cudaEventRecord");
  }
  void wait() const { check(cudaEventSynchronize(done_), "copy"); }

 private:
  HostStaging memory_;
  cudaEvent_t done_ = nullptr;
};

std::array<Turn, 2>& turns() {
  stream();  // outlives them
  thread_local std::array<Turn, 2> made;
  return made;
}

// Rows in pieces, each with the memory whose turn it is.
class Pieces {
 public:
  explicit Pieces(RowSizes all)
      : all_(all),
        rows_(std::clamp<size_t>(kPieceBytes / all.row_bytes, 1, all.rows)),
        count_((all.rows - 1) / rows_ + 1) {}

  struct Piece {
    size_t first_row;
    RowSizes sizes;
    Turn& turn;
    ByteRows memory;
  };
  Piece operator[](size_t i) const {
    Turn& turn = turns()[i % 2];
    const size_t first = i * rows_;
    return {first,
            {std::min(rows_, all_.rows - first), all_.row_bytes},
            turn,
            {turn.memory(rows_ * all_.row_bytes), all_.row_bytes}};
  }
  size_t count() const { return count_; }

 private:
  RowSizes all_;
  size_t rows_;
  size_t count_;
};

template <class Rows>
Rows from_row(Rows rows, size_t first) {
  return {rows.data + first * rows.pitch, rows.pitch};
}

ConstByteRows as_const(ByteRows rows) { return {rows.data, rows.pitch}; }

// Calls copy(from, to, sizes) for rows that suit pieces: what is dense is cut anew, and its last part is a row.
template <class Copy>
void in_rows(ConstByteRows from, ByteRows to, RowSizes sizes, const Copy& copy) {
  const bool dense = sizes.rows == 1 || (from.pitch == sizes.row_bytes && to.pitch == sizes.row_bytes);
  if (!dense) return copy(from, to, sizes);
  const size_t bytes = sizes.rows * sizes.row_bytes, rows = bytes / kDenseRowBytes, tail = bytes % kDenseRowBytes;
  from.pitch = to.pitch = kDenseRowBytes;
  if (rows > 0) copy(from, to, RowSizes{rows, kDenseRowBytes});
  if (tail > 0) copy(from_row(from, rows), from_row(to, rows), RowSizes{1, tail});
}

}  // namespace

void staged_upload(ConstByteRows from, ByteRows to, RowSizes sizes) {
  in_rows(from, to, sizes, [](ConstByteRows source, ByteRows target, RowSizes all) {
    const Pieces pieces(all);
    for (size_t i = 0; i < pieces.count(); ++i) {
      const auto piece = pieces[i];
      piece.turn.wait();
      copy_rows_on_host(from_row(source, piece.first_row), piece.memory, piece.sizes);
      piece.turn.queue(as_const(piece.memory), from_row(target, piece.first_row), piece.sizes, cudaMemcpyHostToDevice);
    }
  });
  synchronize();
}

void staged_download(ConstByteRows from, ByteRows to, RowSizes sizes) {
  in_rows(from, to, sizes, [](ConstByteRows source, ByteRows target, RowSizes all) {
    const Pieces pieces(all);
    for (size_t i = 0; i <= pieces.count(); ++i) {
      if (i < pieces.count()) {
        const auto piece = pieces[i];
        piece.turn.queue(from_row(source, piece.first_row), piece.memory, piece.sizes, cudaMemcpyDeviceToHost);
      }
      if (i == 0) continue;
      const auto before = pieces[i - 1];
      before.turn.wait();
      copy_rows_on_host(as_const(before.memory), from_row(target, before.first_row), before.sizes);
    }
  });
}

}  // namespace scd::kernels::cuda
