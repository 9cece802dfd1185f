// Cross-class alignment: τ² · KL(merged softmax(teacher / τ) ‖ softmax(student / τ)) per row, with its
// derivatives. One block per row.
#include "class_bins.h"
#include "common/exponential.h"
#include "cuda/launch.h"
#include "cuda/logits.h"
#include "kernels.h"

namespace cdkd::cuda {

// Sums over the bins of one class.
template <class A>
struct ClassSums {
  A mass;    // Σ exp(z_t)
  A moment;  // Σ exp(z_t) · z_t
};

// Shifted, scaled logits as factors: a -inf must not turn the zero it meets into NaN.
template <class A>
CDKD_DEVICE A finite_below(A x) {
  const A lowest = std::numeric_limits<A>::lowest();
  return x < lowest ? lowest : x;
}

// What the teacher's rows hold as logits.
struct TeacherLogit {
  bool probabilities;

  template <class A>
  CDKD_DEVICE A operator()(A value) const {
    return probabilities ? log_nonnegative(value) : value;
  }
};

template <bool wants_moment, class A, bool staged>
CDKD_DEVICE ClassSums<A> sum_class(const Logits<A, staged, TeacherLogit>& teacher, const ClassBins<A>& bins,
                                   A max, A scale) {
  ClassSums<A> sums{0, 0};
  for (int i = bins.first; i <= bins.last; ++i) {
    const A z = (teacher[i] - max) * scale;
    const A share = i == bins.first ? bins.first_share : i == bins.last ? bins.last_share : A(1);
    const A part = share * exp_nonpositive(z);
    sums.mass += part;
    if (wants_moment) sums.moment += part * finite_below(z);
  }
  return sums;
}

// A block's shared memory, in elements.
struct CcaKlLayout {
  int64_t teacher, student, mass, moment, scratch, total;
};

CDKD_INLINE CcaKlLayout cca_kl_layout(const CcaKl& call, bool wants_tau, bool staged) {
  const int64_t bins = staged ? call.teacher.length : 0;
  const int64_t classes = staged ? call.student.length : 0;
  CcaKlLayout layout{};
  layout.student = layout.teacher + bins;
  layout.mass = layout.student + classes;
  layout.moment = layout.mass + classes;
  layout.scratch = layout.moment + (wants_tau ? classes : 0);
  layout.total = layout.scratch + 8 * kWarp;  // two, two and four values per warp
  return layout;
}

// The results of a row that has no weight.
template <class A>
CDKD_DEVICE void write_nothing(const CcaKl& call, int64_t row, Group block) {
  if (call.student_gradient.data) write_row<A>(call.student_gradient, row, block, [](int) { return A(0); });
  if (block.thread > 0) return;
  store(static_cast<A*>(call.loss) + row, A(0));
  if (call.tau_gradient) store(static_cast<A*>(call.tau_gradient) + row, A(0));
}

template <class A, bool wants_student, bool wants_tau, bool staged>
__global__ void __launch_bounds__(256, blocks_per_multiprocessor<A>(256)) cca_kl_kernel(const CcaKl call) {
  CDKD_DYNAMIC_SHARED(memory);
  A* const shared = reinterpret_cast<A*>(memory);
  const int bins = call.teacher.length;
  const int classes = call.student.length;
  const CcaKlLayout layout = cca_kl_layout(call, wants_tau, staged);
  A* const mass = shared + layout.mass;      // (N_s,) each element for the thread that wrote it
  A* const moment = shared + layout.moment;  // (N_s,) likewise
  A* const scratch = shared + layout.scratch;
  const Group block{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};

  A tau = read_scalar<A>(call.tau, 0);
  if (!(tau > 0 && tau <= std::numeric_limits<A>::max())) tau = std::numeric_limits<A>::quiet_NaN();
  const A scale = 1 / tau;
  const A part = static_cast<A>(call.offset_part);

  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const A weight = call.weights.data ? read_scalar<A>(call.weights, row) : A(1);
    if (weight == 0) {
      write_nothing<A>(call, row, block);
      continue;
    }
    const TeacherLogit logit{call.probabilities};
    const Logits<A, staged, TeacherLogit> teacher{call.teacher, row, shared + layout.teacher, logit};
    const Logits<A, staged> student{call.student, row, shared + layout.student};
    A max[] = {teacher.stage(block), student.stage(block)};
    reduce_block(max, scratch, Larger());

    const auto class_sums = [&](int j) {
      const int64_t edges = static_cast<int64_t>(bins) * classes;
      const ClassBins<A> range = edges <= 0xffffffff
                                     ? class_bins<A, uint32_t>(j, bins, classes, call.offset_whole, part)
                                     : class_bins<A, int64_t>(j, bins, classes, call.offset_whole, part);
      return sum_class<wants_tau>(teacher, range, max[0], scale);
    };
    A sum[] = {0, 0};  // of the teacher's, of the student's exponentials
    for (int j = block.thread; j < classes; j += block.size) {
      const ClassSums<A> sums = class_sums(j);
      sum[0] += sums.mass;
      sum[1] += exp_nonpositive((student[j] - max[1]) * scale);
      if (staged) mass[j] = sums.mass;
      if (staged && wants_tau) moment[j] = sums.moment;
    }
    reduce_block(sum, scratch + 2 * kWarp, Add());

    const A teacher_norm = 1 / sum[0];
    const A student_norm = 1 / sum[1];
    const A slope_scale = tau * weight;
    const A log_norms = log_positive(sum[1]) - log_positive(sum[0]);
    const A tiny = std::numeric_limits<A>::min();
    // Σ q log(q / p_s), Σ (p_s - q) z_s, Σ q z_t, Σ q z_t log(q / p_s)
    A terms[4] = {0, 0, 0, 0};
    for (int j = block.thread; j < classes; j += block.size) {
      const ClassSums<A> sums = staged ? ClassSums<A>{mass[j], wants_tau ? moment[j] : A(0)} : class_sums(j);
      const A z = (student[j] - max[1]) * scale;
      const A q = sums.mass * teacher_norm;
      const A log_q = log_positive(sums.mass > tiny ? sums.mass : tiny);
      const A log_ratio = sums.mass == 0 ? A(0) : log_q - z + log_norms;
      terms[0] += q * log_ratio;
      if (wants_student) {
        const A difference = exp_nonpositive(z) * student_norm - q;
        if (wants_tau) {
          const A q_z = sums.moment * teacher_norm;
          terms[1] += difference * finite_below(z);
          terms[2] += q_z;
          terms[3] += q_z * log_ratio;
        }
        if (staged) {
          student.copy[j] = slope_scale * difference;
        } else {
          write_element(call.student_gradient, row, j, slope_scale * difference);
        }
      }
    }
    if (wants_tau) {
      reduce_block(terms, scratch + 4 * kWarp, Add());
    } else {
      A divergence[] = {terms[0]};
      reduce_block(divergence, scratch + 4 * kWarp, Add());
      terms[0] = divergence[0];
    }
    if (staged && wants_student)
      write_row<A>(call.student_gradient, row, block, [&](int j) { return student.copy[j]; });
    if (block.thread == 0) {
      store(static_cast<A*>(call.loss) + row, slope_scale * tau * terms[0]);
      if (wants_tau)
        store(static_cast<A*>(call.tau_gradient) + row,
              slope_scale * (2 * terms[0] - terms[1] - terms[3] + terms[0] * terms[2]));
    }
    __syncthreads();  // the next row takes the memory
  }
}

namespace {

template <class A, bool wants_student, bool wants_tau>
cudaError_t launch_as(const CcaKl& call, cudaStream_t stream) {
  const auto bytes = [&](bool staged) {
    return cca_kl_layout(call, wants_tau, staged).total * static_cast<int64_t>(sizeof(A));
  };
  const bool staged = bytes(true) <= kSharedLimit;
  const auto kernel = staged ? &cca_kl_kernel<A, wants_student, wants_tau, true>
                             : &cca_kl_kernel<A, wants_student, wants_tau, false>;
  CDKD_LAUNCH("cca_kl", kernel, dim3(grid_for(call.rows)), dim3(threads_for(call.teacher.length)),
              static_cast<size_t>(bytes(staged)), stream, call);
  return cudaSuccess;
}

template <class A>
cudaError_t launch_in(const CcaKl& call, cudaStream_t stream) {
  if (call.tau_gradient) return launch_as<A, true, true>(call, stream);
  if (call.student_gradient.data) return launch_as<A, true, false>(call, stream);
  return launch_as<A, false, false>(call, stream);
}

}  // namespace

cudaError_t launch_cca_kl(const CcaKl& call, cudaStream_t stream) {
  if (call.rows == 0) return cudaSuccess;
  return call.wide ? launch_in<double>(call, stream) : launch_in<float>(call, stream);
}

}  // namespace cdkd::cuda
