// Losses of rows in one call: value, and gradient with respect to the logits. Plain C; the curves are printed by
// src/lopsided/compute/native/printer.py, and src/lopsided/compute/native/run.py calls this through ctypes.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#define INLINE static __forceinline
#define ALIGNED __declspec(align(64))
#define EXPORT __declspec(dllexport)
#define restrict __restrict
#define PREFETCH(address, write) (void)(address)
static int LOWEST(uint64_t word) {
  unsigned long i;
  _BitScanForward64(&i, word);
  return (int)i;
}
#else
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED _Alignas(64)
#define EXPORT __attribute__((visibility("default")))
#define PREFETCH(address, write) __builtin_prefetch((const void *)(address), write)
#define LOWEST __builtin_ctzll
#endif

// One build serves every x86-64: the loader picks the best clone. Needs ifunc, so glibc.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(LOPSIDED_BASELINE)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#elif defined(_MSC_VER)
#define CLONES
#else
#define CLONES __attribute__((noinline))
#endif

#define TILE 512
#define STEP 256 // labels of a long row at a time
#define SETTINGS 14
#define PARTS 4
#define LARGE 1e30
#define SCALED 2.3283064365386963e-10 // 2^-32: in sums of values, which then do not overflow
#define FOUR(x) x, x, x, x
#define ONES FOUR(FOUR(FOUR(FOUR(1)))), FOUR(FOUR(FOUR(FOUR(1)))) // as many as a tile has labels

enum { F32, F64, BF16, F16, U8, SPARSE, WEIGHTS }; // of a label, both as they are
enum { SUM, LOG_SUM_EXP, PAIRS, MEAN_PAIRS, SOFTMAX, THRESHOLD_SOFTMAX, DECOUPLED_SOFTMAX, SIDE_MEANS, NONE_CLASS };
enum { NOTHING, LABELS, ROWS, POSITIVE_ROWS }; // what `scale` is divided by

static const int bytes_of[] = {4, 8, 2, 2, 1, 0, 0};

typedef struct { // in the order of native/run.py
  int64_t rows, labels, logit_stride, target_stride, mask_stride, weight_stride, pos_weight_stride, entries;
  const void *logits, *targets;
  const int64_t *crow, *col;
  const double *sparse_values;
  const uint8_t *mask;
  const void *weight, *pos_weight, *row_weight; // in the type of the values
  // Of each row, and the sum of them: either may be null. The gradient, or null: rows x labels in the type of the logits.
  // All three are multiplied with `scale`.
  void *value, *total, *gradient;
  // All pools but the sum, where the labels of a row come in parts: the state of this part is written to `part_state`; that
  // of all parts is read from `joined_state`, and makes value and gradient. rows x 2 sides x PARTS, or null.
  double *part_state;
  const double *joined_state;
  double smoothing, ignored, scale, constants[2]; // of the pool: the powers of pairs, the margin of means
  double factors[2], settings[2][SETTINGS]; // of the positive, of the negative
  int32_t logit_type, target_type, ignoring, pool, positive, negative, threads, counted, both_ways;
  // results: a target or weight that may be wrong, a target that is unknown, no memory, sparse targets that are not sound; the
  // first row may be probabilities
  int32_t needs_check, unknown, failed, broken, looks_like_probabilities;
  double full[2]; // what the weights of a label that is positive, or negative, are multiplied with
} Job;

// One side of a row. Of a pool of exponentials: sum of weight exp(value), relative to the peak; sums of weight, and of weight
// value, SCALED. With a none class the peak of the positives is the largest y, and their dot what all labels cost; the sums
// of the negatives are the number of labels and their logits, SCALED. And, once all labels are in, what its part of the
// gradient has of its shares, and of weight itself.
typedef struct {
  double peak, sum, mass, dot, factor, linear;
} Side;
#define NOTHING_YET {-LARGE, 0, 0, 0, 0, 0}

// Does the loss of a row hold the sum of what labels cost, so that their weights can have the scale in them?
static int is_sum(const Job *job) { return job->pool == SUM || job->pool == NONE_CLASS; }

static void give_part(const Job *job, long row, const Side *sides) {
  for (int side = 0; side < 2 && job->part_state; side++)
    memcpy(job->part_state + (row * 2 + side) * PARTS, sides + side, PARTS * sizeof(double));
}

static void take_joined(const Job *job, long row, int side, Side *to) {
  if (job->joined_state) memcpy(to, job->joined_state + (row * 2 + side) * PARTS, PARTS * sizeof(double));
}

// log(1 + exp(x)), and its derivative
static double softplus(double x, double *slope) {
  const double e = exp(-fabs(x));
  *slope = (x >= 0 ? 1 : e) / (1 + e);
  return (x > 0 ? x : 0) + log1p(e);
}

static double log_sum(const Side *side) {
  return side->sum > 0 ? side->peak + log(side->sum) : isnan(side->sum) ? NAN : -LARGE;
}

// log(1 + exp(S)) of the logarithm S of a sum, and its derivative.
static double finish_threshold(Side *side) {
  const double x = side->sum * exp(side->peak); // two logarithms fewer
  if (!(x < 1e300)) return softplus(log_sum(side), &side->factor);
  side->factor = x / (1 + x);
  return log1p(x);
}

static double mean_of(const Side *side, double mass) { return mass == 0 ? 0 : side->dot / mass / SCALED; }

// Those of softmaxes, which have parts that are linear in the values of positives.
static double finish_softmax(const Job *job, Side *sides) {
  const double mass = sides[0].mass;
  double value = 0, below;
  if (job->pool == THRESHOLD_SOFTMAX) {
    const double up = log_sum(sides);
    value = finish_threshold(sides + 1);
    if (!(mass > 0)) return value;
    value += mass * (softplus(-up, &below) + (up - mean_of(sides, mass)));
    sides[0].factor = mass * (1 - below), sides[0].linear = -1;
  } else if (mass > 0 && job->pool == SOFTMAX) {
    value = log_sum(sides + 1) - mean_of(sides, mass);
    sides[0].linear = -1 / mass, sides[1].factor = 1;
  } else if (mass > 0) {
    value = mean_of(sides, mass);
    sides[0].linear = 1 / mass, sides[1].factor = sides[0].sum / mass;
  }
  return value;
}

// Value of the row, and factor of both sides: d value / d (weight exp(value - peak)).
static double finish(const Job *job, Side *sides) {
  double value = 0;
  for (int i = 0; i < 2; i++) sides[i].factor = sides[i].linear = 0;
  if (job->pool == LOG_SUM_EXP) {
    for (int i = 0; i < 2; i++) value += finish_threshold(sides + i);
  } else if (job->pool == PAIRS) {
    double slope;
    value = softplus(job->constants[0] * log_sum(sides) + job->constants[1] * log_sum(sides + 1), &slope);
    for (int i = 0; i < 2; i++) sides[i].factor = job->constants[i] * slope;
  } else if (job->pool == MEAN_PAIRS) {
    int any = sides[0].mass > 0 && sides[1].mass > 0;
    value = any ? exp(log_sum(sides) + log_sum(sides + 1)) / (sides[0].mass * sides[1].mass)
                : 0 * (sides[0].sum + sides[1].sum); // or NaN
    sides[0].factor = sides[1].factor = value;
  } else if (job->pool == SIDE_MEANS) {
    value = mean_of(sides, sides[0].sum) + mean_of(sides + 1, sides[1].sum);
  } else {
    value = finish_softmax(job, sides);
  }
  for (int i = 0; i < 2; i++)
    sides[i].factor = sides[i].sum == 0 || sides[i].factor == 0 ? 0 : sides[i].factor / sides[i].sum;
  return value;
}

#define REAL float
#define INTEGER int32_t
#define UNSIGNED uint32_t
#define NAME(name) name##_f32
#define SINGLE
#include "real.h"
INLINE int32_t sortable_f32(float x) {
  int32_t i = bits_f32(x);
  return i ^ ((i >> 31) & 0x7fffffff);
}
INLINE float unsortable_f32(int32_t i) { return real_f32(i ^ ((i >> 31) & 0x7fffffff)); }
#include "half.h"
#include "targets.h"
#include "sums.h"
#include "exponentials.h"
#include "means.h"
#include "rows.h"
#include "columns.h"
#undef REAL
#undef INTEGER
#undef UNSIGNED
#undef NAME
#undef SINGLE
#undef NEGATIVE_ABS
#undef TINY
#undef MOST
#undef EXP
#undef LOG
#undef LOG1P
#undef LOG1P_UNIT
#undef RECIPROCAL1P
#undef KERNEL
#undef POWER
#undef WHOLE
#undef TRUTH
#undef SELECT

#define REAL double
#define INTEGER int64_t
#define UNSIGNED uint64_t
#define NAME(name) name##_f64
#include "real.h"
INLINE int64_t sortable_f64(double x) {
  int64_t i = bits_f64(x);
  return i ^ ((i >> 63) & 0x7fffffffffffffff);
}
INLINE double unsortable_f64(int64_t i) { return real_f64(i ^ ((i >> 63) & 0x7fffffffffffffff)); }
#include "targets.h"
#include "sums.h"
#include "exponentials.h"
#include "means.h"
#include "rows.h"
#include "columns.h"

// The number of the curve of that name, as native/printer.py makes it; -1 if there is none.
EXPORT int lopsided_curve(const char *name) {
#define ENTRY(name) #name,
  static const char *const names[] = {KERNELS};
  for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
    if (strcmp(name, names[i]) == 0) return i;
  return -1;
}

// A large new buffer is mapped page by page as it is written, which costs more than the loss; huge pages are 512 times fewer.
EXPORT void lopsided_new(void *buffer, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  static const uintptr_t huge = 1 << 21;
  uintptr_t start = ((uintptr_t)buffer + huge - 1) & ~(huge - 1),
            end = ((uintptr_t)buffer + (uintptr_t)bytes) & ~(huge - 1);
  if (buffer && end > start + huge) madvise((void *)start, end - start, MADV_HUGEPAGE);
#endif
}

// The digest of the sources, so that a library of other ones is not called: see native/sources.py.
#define TEXT(tokens) #tokens
#define TEXT_OF(macro) TEXT(macro)
EXPORT const char *lopsided_sources(void) { return TEXT_OF(SOURCES); }

// Does every entry of sparse targets lie in a row, and at a label that there is?
static int is_sound(const Job *job) {
  int sound = job->crow[0] == 0 && job->crow[job->rows] == job->entries;
  for (int64_t row = 0; row < job->rows; row++) sound &= job->crow[row] <= job->crow[row + 1];
  for (int64_t e = 0; e < job->entries; e++) sound &= job->col[e] >= 0 && job->col[e] < job->labels;
  return sound;
}

// What may be wrong is for the caller to look at closely: a known target not in [0, 1], a weight that is negative or not finite. With sparse targets that are not sound nothing is computed.
EXPORT void lopsided_rows(Job *job) {
  job->broken = job->target_type == SPARSE && !is_sound(job);
  if (job->broken) return;
  lopsided_new(job->gradient, job->rows * job->labels * bytes_of[job->logit_type]);
  if (job->logit_type == F64) (job->both_ways ? run_both_ways_f64 : run_f64)(job);
  else (job->both_ways ? run_both_ways_f32 : run_f32)(job);
}
