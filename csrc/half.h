// 16-bit floats, by integer arithmetic that every compiler vectorises; stored rounded to nearest, ties to even.

CLONES static void load_bf16(const uint16_t *restrict h, float *restrict x, long m) {
  for (long i = 0; i < m; i++) x[i] = real_f32((int32_t)((uint32_t)h[i] << 16));
}

CLONES static void store_bf16(const float *restrict x, uint16_t *restrict h, long m) {
  for (long i = 0; i < m; i++) {
    const uint32_t b = (uint32_t)bits_f32(x[i]); // a NaN stays one: its payload is no more than that of a bfloat16
    h[i] = (uint16_t)((b + 0x7fffu + ((b >> 16) & 1)) >> 16);
  }
}

CLONES static void load_f16(const uint16_t *restrict h, float *restrict x, long m) {
  for (long i = 0; i < m; i++) {
    int32_t rest = (int32_t)((uint32_t)(h[i] & 0x7fff) << 13);
    float scaled = real_f32(rest) * 5.192296858534828e33f; // 2^112: subnormals become normal
    int32_t special = -(int32_t)((h[i] & 0x7c00) == 0x7c00);
    int32_t b = (bits_f32(scaled) & ~special) | ((rest | 0x7f800000) & special);
    x[i] = real_f32(b | (int32_t)((uint32_t)(h[i] & 0x8000) << 16));
  }
}

CLONES static void store_f16(const float *restrict x, uint16_t *restrict h, long m) {
  for (long i = 0; i < m; i++) {
    uint32_t b = (uint32_t)bits_f32(x[i]), sign = (b >> 16) & 0x8000u, rest = b & 0x7fffffffu;
    // below the smallest normal half: adding 1/2 puts its last bit where the last bit of a subnormal half is
    uint32_t small = (uint32_t)bits_f32(real_f32((int32_t)rest) + 0.5f) - 0x3f000000u;
    uint32_t normal = (rest - 0x38000000u + 0x0fffu + ((rest >> 13) & 1)) >> 13;
    uint32_t is_small = -(uint32_t)(rest < 0x38800000u), is_large = -(uint32_t)(rest >= 0x477ff000u);
    uint32_t is_nan = -(uint32_t)(rest > 0x7f800000u);
    uint32_t out = (small & is_small) | (normal & ~is_small);
    out = (out & ~is_large) | ((0x7c00u | (0x0200u & is_nan)) & is_large);
    h[i] = (uint16_t)(out | sign);
  }
}
