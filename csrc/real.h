// Arithmetic for one real type; included twice, with REAL float and double. Tables and names end in SUFFIX.
// Selects are bit masks: gcc turns `c ? a : b` into branches here, and then does not vectorise.

typedef struct {
  REAL gamma, margin, shift, scale, constant, peak, terms[8];
} NAME(Settings);

INLINE INTEGER NAME(bits)(REAL x) {
  INTEGER i;
  memcpy(&i, &x, sizeof i);
  return i;
}

INLINE REAL NAME(real)(INTEGER i) {
  REAL x;
  memcpy(&x, &i, sizeof x);
  return x;
}

INLINE REAL NAME(choose)(int condition, REAL a, REAL b) {
  INTEGER mask = -(INTEGER)condition;
  return NAME(real)((NAME(bits)(a) & mask) | (NAME(bits)(b) & ~mask));
}

#define TRUTH int
#define SELECT NAME(choose)
#define KERNEL(name) \
  CLONES static void NAME(name)(const REAL *restrict z, REAL *restrict value, REAL *restrict slope, long m, \
                                const NAME(Settings) *restrict s)

#ifdef SINGLE
#define ABS fabsf
#define TINY 1.17549435e-38f

// x <= 87; 0 below the smallest normal result; at most 2 ulp
INLINE float exp_f32(float x) {
  float clamped = choose_f32(x >= -87.3f, x, -87.3f); // NaN is no integer either
  int32_t n = (int32_t)(clamped * 1.44269504088896341f - 0.5f);
  float k = (float)n, r = clamped - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  float r2 = r * r, a = 1.9875691500e-4f * r + 1.3981999507e-3f, b = 8.3334519073e-3f * r + 4.1665795894e-2f,
        c = 1.6666665459e-1f * r + 5.0000001201e-1f;
  float p = (a * r2 + b) * r2 + c;
  float y = (p * r2 + (r + 1.0f)) * real_f32((int32_t)((uint32_t)(n + 127) << 23));
  return choose_f32(x >= -87.3f, y, choose_f32(x < -87.3f, 0.0f, x));
}

INLINE float log_tail(float f, float k) { // log(1 + f) + k log 2
  float z = f * f, z2 = z * z, a = 7.0376836292e-2f * f - 1.1514610310e-1f, b = 1.1676998740e-1f * f - 1.2420140846e-1f,
        c = 1.4249322787e-1f * f - 1.6668057665e-1f, d = 2.0000714765e-1f * f - 2.4999993993e-1f;
  float y = (a * z + b) * z2 + (c * z + d);
  y = (y * f + 3.3333331174e-1f) * f * z - k * 2.12194440e-4f - 0.5f * z;
  return f + y + k * 0.693359375f;
}

// The integers lose a NaN, and the compiler folds 0 * x away.
INLINE float pass_nan(int32_t i, float x, float y) { return choose_f32((uint32_t)i > 0x7f800000u, x, y); }

// -1 < x <= 2
INLINE float log1p_f32(float x) {
  int32_t i = bits_f32(1.0f + x), k = (i - 0x3f3504f3) >> 23;
  float m = real_f32(i - (int32_t)((uint32_t)k << 23));
  return pass_nan(i, x, log_tail(choose_f32(k == 0, x, m - 1.0f), (float)k));
}

// the smallest normal number and above
INLINE float log_f32(float x) {
  int32_t i = bits_f32(x), k = (i - 0x3f3504f3) >> 23;
  return pass_nan(i, x, log_tail(real_f32(i - (int32_t)((uint32_t)k << 23)) - 1.0f, (float)k));
}

#define EXP exp_f32
#define LOG log_f32
#define LOG1P log1p_f32
#else
#define ABS fabs
#define TINY 2.2250738585072014e-308
#define EXP exp
#define LOG log
#define LOG1P log1p
#endif

#define POWER NAME(power)
// x^gamma for x in [0, 1]: products for whole exponents up to 8, which are exact to rounding; else exp(gamma log x)
CLONES static void POWER(const REAL *restrict x, REAL gamma, REAL *restrict out, long m) {
  int whole = gamma >= 0 && gamma <= 8 ? (int)gamma : -1;
  if ((REAL)whole != gamma) {
    for (long i = 0; i < m; i++) out[i] = LOG(SELECT(x[i] < TINY, TINY, x[i]));
    for (long i = 0; i < m; i++) out[i] = EXP(gamma * out[i]);
    return;
  }
  ALIGNED REAL square[TILE + 16];
  for (long i = 0; i < m; i++) out[i] = whole & 1 ? x[i] : 1;
  if (whole < 2) return;
  for (long i = 0; i < m; i++) square[i] = x[i] * x[i];
  for (whole >>= 1; whole; whole >>= 1) {
    if (whole & 1)
      for (long i = 0; i < m; i++) out[i] *= square[i];
    if (whole > 1)
      for (long i = 0; i < m; i++) square[i] *= square[i];
  }
}

#include "curves.inc"

typedef void (*NAME(Curve))(const REAL *, REAL *, REAL *, long, const NAME(Settings) *);
#define ENTRY(name) NAME(name),
static const NAME(Curve) NAME(curves)[] = {KERNELS};
#undef ENTRY
