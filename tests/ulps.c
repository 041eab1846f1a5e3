// Prints the largest error of each elementary function, in units in the last place, against double precision.
#include "lopsided.c"

#include <stdio.h>

static double ulps(float got, double exact) {
  int exponent;
  frexp(exact, &exponent);
  return fabs(got - exact) / ldexp(1, (exponent > -125 ? exponent : -125) - 24);
}

#define SCAN(function, low, high, exact)                         \
  {                                                              \
    double worst = 0;                                            \
    for (uint64_t i = 0; i < 0x100000000u; i += 257) {            \
      const float x = real_f32((int32_t)(uint32_t)i);            \
      if (!(x >= low && x <= high)) continue;                    \
      const double error = ulps(function(x), exact);             \
      worst = error > worst ? error : worst;                     \
    }                                                            \
    printf("%s %.3f\n", #function, worst);                       \
  }

int main(void) {
  SCAN(exp_f32, -87.3f, 87.0f, exp((double)x))
  SCAN(log1p_unit_f32, 0, 1, log1p((double)x))
  SCAN(reciprocal1p_f32, 0, 1, 1 / (1 + (double)x))
  SCAN(log1p_f32, -0.999f, 2, log1p((double)x))
  SCAN(log_f32, 1.1754944e-38f, 1e38f, log((double)x))
  return 0;
}
