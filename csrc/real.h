// Arithmetic for one real type; included twice, with REAL float and double. NAME puts the type at the end of a name.
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

#define NEGATIVE_ABS(x) NAME(real)(NAME(bits)(x) | NAME(bits)((REAL)-0.0))
#define TRUTH int
#define SELECT NAME(choose)
#define KERNEL(name)                                                                                  \
  CLONES static REAL NAME(name)(const REAL *restrict z, const REAL *restrict w, REAL *restrict value, \
                                REAL *restrict slope, long m, const NAME(Settings) *restrict s)

#ifdef SINGLE
#define TINY 1.17549435e-38f
#define MOST 3.40282347e+38f

// 1.5 2^23 + 127: the last bits of x + ROUND are the nearest whole number to x, biased as exponents are
#define ROUND 12583039.0f

// x <= 87; 0 below the smallest normal result; at most 3 ulp
INLINE float exp_f32(float x) {
  const int low = x < -87.3f;
  const float t = x * 1.44269504088896341f + ROUND, n = t - ROUND;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f, r2 = r * r;
  const float a = 8.3125215e-3f * r + 4.1890148e-2f, b = 1.6667114e-1f * r + 4.9999231e-1f;
  const float p = (a * r2 + b) * r2 + (r + 1.0f);
  return choose_f32(low, 0.0f, p * real_f32((int32_t)((uint32_t)bits_f32(t) << 23)));
}

INLINE float log_tail(float f, float k) { // log(1 + f) + k log 2
  const float f2 = f * f, f4 = f2 * f2;
  const float a = -0.49999991f + 0.33333951f * f, b = -0.25001758f + 0.19962065f * f;
  const float c = -0.16570427f + 0.14917964f * f, d = -0.14308189f + 0.087357648f * f;
  return (f2 * ((a + b * f2) + (c + d * f2) * f4) + f) + k * 0.69314718f;
}

INLINE float power_of_2(int32_t i) { // 2^-k, for i = k in the bits of the exponent and anything below
  return real_f32(0x3f800000 - (i & (int32_t)0xff800000));
}

// -1 < x <= 2
INLINE float log1p_f32(float x) {
  const int32_t i = bits_f32(1.0f + x) - 0x3f3504f3;
  const float scale = power_of_2(i);
  return log_tail(x * scale + (scale - 1.0f), (float)(i >> 23)); // x itself where the scale is 1
}

// the smallest normal number to 1e38
INLINE float log_f32(float x) {
  const int32_t i = bits_f32(x) - 0x3f3504f3;
  return log_tail(x * power_of_2(i) - 1.0f, (float)(i >> 23));
}

// 1 / (1 + e) and log(1 + e), 0 <= e <= 1; at most 2 ulp
INLINE float reciprocal1p_f32(float e) {
  const float r = 0.99826688f + e * (-0.94280761f + e * (0.66551125f - 0.22183709f * e)), rest = (1.0f - r) - r * e;
  return r + r * (rest + rest * rest);
}

INLINE float log1p_unit_f32(float e) {
  const float e2 = e * e, e4 = e2 * e2;
  const float a = -0.49999648f + 0.33321324f * e, b = -0.24857163f + 0.19153656f * e,
              c = -0.13753803f + 0.07920455f * e, d = -0.030065803f + 5.3648268e-3f * e;
  return e + e2 * ((a + b * e2) + (c + d * e2) * e4);
}

#define RECIPROCAL1P reciprocal1p_f32
#define LOG1P_UNIT log1p_unit_f32
#define EXP exp_f32
#define LOG log_f32
#define LOG1P log1p_f32
#else
#define TINY 2.2250738585072014e-308
#define MOST 1.7976931348623157e+308
#define EXP exp
#define LOG log
#define LOG1P log1p
#define LOG1P_UNIT log1p
#define RECIPROCAL1P(e) (1 / (1 + (e)))
#endif

#define POWER NAME(power)
#define WHOLE(gamma, product)          \
  case gamma:                          \
    for (long i = 0; i < m; i++) {     \
      const REAL v = x[i], v2 = v * v; \
      out[i] = product;                \
      (void)v2;                        \
    }                                  \
    return
// x^gamma for x in [0, 1]: products for whole exponents up to 8, which are exact to rounding; else exp(gamma log x)
CLONES static void POWER(const REAL *restrict x, REAL gamma, REAL *restrict out, long m) {
  const int whole = gamma >= 0 && gamma <= 8 ? (int)gamma : -1;
  switch ((REAL)whole == gamma ? whole : -1) {
    WHOLE(0, 1);
    WHOLE(1, v);
    WHOLE(2, v2);
    WHOLE(3, v2 * v);
    WHOLE(4, v2 * v2);
    WHOLE(5, v2 * v2 * v);
    WHOLE(6, v2 * v2 * v2);
    WHOLE(7, v2 * v2 * v2 * v);
    WHOLE(8, (v2 * v2) * (v2 * v2));
  }
  for (long i = 0; i < m; i++) out[i] = LOG(SELECT(x[i] < TINY, TINY, x[i]));
  for (long i = 0; i < m; i++) out[i] = EXP(gamma * out[i]);
}

#include "curves.inc"

typedef REAL (*NAME(Curve))(const REAL *, const REAL *, REAL *, REAL *, long, const NAME(Settings) *);
#define ENTRY(name) NAME(name),
static const NAME(Curve) NAME(curves)[] = {KERNELS};
#undef ENTRY
