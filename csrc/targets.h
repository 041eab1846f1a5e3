// From what is said about the labels of a tile to two weights per label; included twice. Nothing here knows a curve.

typedef struct {
  ALIGNED REAL z[TILE + 16], up[TILE + 16], down[TILE + 16], value[TILE + 16], slope[TILE + 16], picked[TILE + 16],
      weight[TILE + 16];
  int32_t index[TILE + 16]; // labels with a positive weight, within the tile
  int64_t entry;            // sparse targets: the next one, where they are sorted
  int sorted, odd;          // odd: a target was not between 0 and 1
} NAME(Tile);

INLINE const REAL *NAME(load)(const Job *job, long row, long start, long m, REAL *restrict z) {
  long at = row * job->logit_stride + start;
#ifdef SINGLE
  if (job->logit_type == BF16) load_bf16((const uint16_t *)job->logits + at, z, m);
  else if (job->logit_type == F16) load_f16((const uint16_t *)job->logits + at, z, m);
  else
#endif
    return (const REAL *)job->logits + at;
  return z;
}

// y and 1 - y times a scale, smoothed; 0 where y is unknown.
#define READ(TYPE, VALUE)                                              \
  {                                                                    \
    const TYPE *restrict y = (const TYPE *)job->targets + at;          \
    for (long i = 0; i < m; i++) {                                     \
      const REAL v = (REAL)VALUE, w = v * keep + half;                 \
      const int known = (v == v) & (v != ignored);                     \
      odd |= !((v >= 0) & (v <= 1)), any |= v > 0;                     \
      up[i] = SELECT(known, w, 0), down[i] = SELECT(known, full - w, 0); \
    }                                                                  \
  }

// Returns whether a target is positive.
CLONES static int NAME(read)(const Job *job, long at, long m, REAL full, NAME(Tile) *restrict t) {
  REAL *restrict up = t->up, *restrict down = t->down;
  const REAL half = full * (REAL)job->smoothing / 2, keep = full * (1 - (REAL)job->smoothing);
  const REAL ignored = job->ignoring ? (REAL)job->ignored : (REAL)NAN;
  int odd = 0, any = 0;
  if (job->target_type == U8) READ(uint8_t, (int32_t)y[i])
  else if (job->target_type == F32) READ(float, y[i])
  else READ(double, y[i])
  t->odd |= odd;
  return any;
}

// The same from the stored entries of a row; what is not stored is 0. An entry that comes twice counts once.
static long NAME(place)(const Job *job, long row, long start, long m, REAL full, NAME(Tile) *t) {
  const int64_t end = job->crow[row + 1];
  const REAL half = full * (REAL)job->smoothing / 2, keep = full * (1 - (REAL)job->smoothing);
  for (long i = 0; i < m; i++) t->up[i] = half, t->down[i] = full - half;
  if (start == 0) {
    t->sorted = 1, t->entry = job->crow[row];
    for (int64_t e = t->entry + 1; e < end; e++) t->sorted &= job->col[e - 1] <= job->col[e];
  }
  long count = 0;
  int64_t e = t->sorted ? t->entry : job->crow[row];
  for (; e < end; e++) {
    const int64_t i = job->col[e] - start;
    if (i >= m && t->sorted) break;
    if (i < 0 || i >= m) continue;
    const REAL y = job->sparse_values ? (REAL)job->sparse_values[e] : 1;
    if (y > 0 && t->up[i] == half) t->index[count++] = (int32_t)i;
    t->up[i] = y == y ? y * keep + half : 0, t->down[i] = y == y ? full - t->up[i] : 0;
  }
  t->entry = e;
  return count;
}

CLONES static void NAME(weigh)(const Job *job, long row, long start, long m, REAL *restrict up, REAL *restrict down) {
  if (job->mask) {
    const uint8_t *mask = job->mask + row * job->mask_stride + start;
    for (long i = 0; i < m; i++) up[i] = SELECT(mask[i], up[i], 0), down[i] = SELECT(mask[i], down[i], 0);
  }
  if (job->pos_weight) {
    const REAL *w = (const REAL *)job->pos_weight + row * job->pos_weight_stride + start;
    for (long i = 0; i < m; i++) up[i] *= w[i];
  }
  if (job->weight) {
    const REAL *w = (const REAL *)job->weight + row * job->weight_stride + start;
    for (long i = 0; i < m; i++) up[i] *= w[i], down[i] *= w[i];
  }
}

// The labels of a tile with a positive weight.
CLONES static long NAME(pick)(const REAL *restrict up, long m, int32_t *restrict index) {
  ALIGNED uint8_t flag[TILE];
  for (long i = 0; i < m; i++) flag[i] = up[i] > 0;
  memset(flag + m, 0, TILE - m);
  long count = 0;
  for (long i = 0; i < m; i += 8) {
    uint64_t word;
    memcpy(&word, flag + i, 8);
    for (; word; word &= word - 1) index[count++] = (int32_t)(i + LOWEST(word) / 8);
  }
  return count;
}

// Both weights of a tile, and its positive labels with their logits and weights side by side, filled up with zeros to whole
// vectors; returns how many there are, and writes where the logits lie.
static long NAME(begin)(const Job *job, long row, long start, long m, REAL full, NAME(Tile) *t, const REAL **logits) {
  const REAL *z = *logits = NAME(load)(job, row, start, m, t->z);
  const int sparse = job->target_type == SPARSE;
  long count = sparse ? NAME(place)(job, row, start, m, full, t)
                      : NAME(read)(job, row * job->target_stride + start, m, full, t);
  NAME(weigh)(job, row, start, m, t->up, t->down);
  if (job->smoothing > 0 || (count && !sparse)) count = NAME(pick)(t->up, m, t->index);
  for (long j = 0; j < count; j++) t->picked[j] = z[t->index[j]], t->weight[j] = t->up[t->index[j]];
  for (long j = count; j & 15; j++) t->picked[j] = 0, t->weight[j] = 0;
  return count;
}
#define PADDED(count) (((count) + 15) & ~15L)
