// A row of logits that a block reads more than once.
#pragma once
#include <limits>

#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace cdkd::cuda {

struct AsIs {
  template <class A>
  CDKD_DEVICE A operator()(A value) const {
    return value;
  }
};

// The row is copied to shared memory if staged, else read again where it is needed; `logit` of what it holds.
template <class A, bool staged, class Logit = AsIs>
struct Logits {
  const Rows& rows;
  int64_t row;
  A* copy;
  Logit logit = {};

  CDKD_DEVICE A operator[](int i) const { return staged ? copy[i] : logit(read_element<A>(rows, row, i)); }

  // Copy, and return the maximum of this thread's part.
  CDKD_DEVICE A stage(Group group) const {
    A max = -std::numeric_limits<A>::infinity();
    read_row<A>(rows, row, group, [&](int i, A held) {
      const A value = logit(held);
      if (staged) copy[i] = value;
      max = Larger()(value, max);
    });
    return max;
  }
};

}  // namespace cdkd::cuda
