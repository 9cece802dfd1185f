// A row of logits that a block reads more than once.
#pragma once
#include <limits>

#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace cdkd::cuda {

// The row is copied to shared memory if staged, else read again where it is needed.
template <class A, bool staged>
struct Logits {
  const Rows& rows;
  int64_t row;
  A* copy;

  CDKD_DEVICE A operator[](int i) const { return staged ? copy[i] : read_element<A>(rows, row, i); }

  // Copy, and return the maximum of this thread's part.
  CDKD_DEVICE A stage(Group group) const {
    A max = -std::numeric_limits<A>::infinity();
    read_row<A>(rows, row, group, [&](int i, A value) {
      if (staged) copy[i] = value;
      max = Larger()(value, max);
    });
    return max;
  }
};

}  // namespace cdkd::cuda
