// From what is said about the labels of a tile to two weights per label; included twice. Nothing here knows a curve.

typedef struct {
  ALIGNED REAL z[TILE + 16], up[TILE + 16], down[TILE + 16], value[TILE + 16], slope[TILE + 16], rise[TILE + 16];
  int64_t entry; // sparse targets: the next one, where they are sorted
  int sorted, listed; // sparse targets: in order; in order and each once, so that `place` lists the positives itself
  int hard; // dense targets, that mean what they say where they are 0 or 1
  int even; // and nothing else is said of the labels, so that they weigh alike there
  int odd; // a known target was not between 0 and 1, or a weight negative or not finite
  int unknown; // a target was NaN or to be ignored
} NAME(Tile);

// The labels of a row with a positive weight, with their logits and weights: few, so that they wait for each other.
typedef struct {
  int32_t *index;
  REAL *z, *weight;
  long count;
} NAME(Positives);

INLINE const REAL *NAME(load)(const Job *job, long row, long start, long m, REAL *restrict z) {
  const int64_t at = row * job->logit_stride + start;
#ifdef SINGLE
  if (job->logit_type == BF16) load_bf16((const uint16_t *)job->logits + at, z, m);
  else if (job->logit_type == F16) load_f16((const uint16_t *)job->logits + at, z, m);
  else
#endif
    return (const REAL *)job->logits + at;
  return z;
}

// Both weights are linear in y: y and 1 - y, smoothed, times what the pool says.
INLINE void NAME(line)(const Job *job, REAL *slope, REAL *base) {
  const REAL smoothing = (REAL)job->smoothing;
  for (int i = 0; i < 2; i++) {
    const REAL full = (REAL)job->full[i], half = full * smoothing / 2;
    slope[i] = (i ? -1 : 1) * full * (1 - smoothing), base[i] = i ? full - half : half;
  }
}

// The weights of a tile, 0 where y is unknown. Most tiles hold nothing but [0, 1], which is quick.
#define READ(TYPE, VALUE)                                                   \
  {                                                                         \
    const TYPE *restrict y = (const TYPE *)job->targets + at;               \
    for (long i = 0; i < m; i++) {                                          \
      const REAL v = (REAL)VALUE;                                           \
      odd |= (UNSIGNED)NAME(bits)(v) > one, any |= NAME(bits)(v);           \
      up[i] = v * slope[0] + base[0], down[i] = v * slope[1] + base[1];     \
    }                                                                       \
    for (long i = 0; i < m && odd; i++) {                                   \
      const REAL v = (REAL)VALUE;                                           \
      const int known = (v == v) & (v != ignored);                          \
      unknown |= !known, wrong |= known & !((v >= 0) & (v <= 1));           \
      up[i] = SELECT(known, up[i], 0), down[i] = SELECT(known, down[i], 0); \
    }                                                                       \
  }

// Returns whether a target may be positive.
CLONES static int NAME(read)(const Job *job, int64_t at, long m, NAME(Tile) *restrict t) {
  REAL *restrict up = t->up, *restrict down = t->down;
  REAL slope[2], base[2];
  NAME(line)(job, slope, base);
  const REAL ignored = job->ignoring ? (REAL)job->ignored : (REAL)NAN;
  const UNSIGNED one = (UNSIGNED)NAME(bits)(1);
  INTEGER odd = job->ignoring, any = 0;
  int unknown = 0, wrong = 0;
  if (job->target_type == U8) READ(uint8_t, (int32_t)y[i])
  else if (job->target_type == F32) READ(float, y[i])
  else READ(double, y[i])
  t->odd |= wrong, t->unknown |= unknown;
  return any != 0;
}
#undef READ

// Appends the labels whose flag is set. Where they lie is chance, so that a branch for each costs more than the curves do:
// there is one for 64.
CLONES static void NAME(append)(uint8_t *restrict flag, long start, long m, NAME(Positives) *list) {
  memset(flag + m, 0, TILE - m);
  for (long i = 0; i < m; i += 64) {
    uint64_t found = 0, words[8];
    memcpy(words, flag + i, 64);
    for (int w = 0; w < 8; w++) found |= (words[w] * 0x0102040810204080 >> 56) << (8 * w); // a bit for each byte
    for (; found; found &= found - 1) list->index[list->count++] = (int32_t)(start + i + LOWEST(found));
  }
}

CLONES static void NAME(pick)(const REAL *restrict up, long start, long m, NAME(Positives) *list) {
  ALIGNED uint8_t flag[TILE];
  for (long i = 0; i < m; i++) flag[i] = up[i] > 0;
  NAME(append)(flag, start, m, list);
}

// The same as `read` from the stored entries of a row, for m labels from `start` on, whose weights go to `place` of the tile;
// what is not stored is 0. An entry that comes twice counts once, the last time. Lists the labels that may be positive.
static void NAME(place)(const Job *job, long row, long start, long m, long place, NAME(Tile) *t,
                        NAME(Positives) *list) {
  REAL *up = t->up + place, *down = t->down + place;
  const int64_t end = job->crow[row + 1];
  REAL slope[2], base[2];
  NAME(line)(job, slope, base);
  for (long i = 0; i < m; i++) up[i] = base[0], down[i] = base[1];
  if (start == 0) {
    t->entry = job->crow[row], t->sorted = 1, t->listed = !(job->smoothing > 0);
    for (int64_t e = t->entry + 1; e < end; e++) {
      t->sorted &= job->col[e - 1] <= job->col[e];
      t->listed &= job->col[e - 1] < job->col[e];
    }
  }
  int64_t e = t->sorted ? t->entry : job->crow[row];
  for (; e < end; e++) {
    const int64_t i = job->col[e] - start;
    if (i >= m && t->sorted) break;
    if (i < 0 || i >= m) continue;
    const REAL y = job->sparse_values ? (REAL)job->sparse_values[e] : 1;
    t->odd |= y < 0 || y > 1, t->unknown |= y != y;
    up[i] = y == y ? y * slope[0] + base[0] : 0, down[i] = y == y ? y * slope[1] + base[1] : 0;
    if (t->listed) list->index[list->count++] = (int32_t)(place + job->col[e]);
  }
  t->entry = e;
  if (!t->listed) NAME(pick)(up, start + place, m, list);
}

CLONES static void NAME(weigh)(const Job *job, long row, long start, long m, REAL *restrict up, REAL *restrict down,
                               int *strange) {
  const UNSIGNED infinite = (UNSIGNED)NAME(bits)((REAL)INFINITY);
  INTEGER odd = 0;
  if (job->mask) {
    const uint8_t *restrict mask = job->mask + row * job->mask_stride + start;
    for (long i = 0; i < m; i++) up[i] = SELECT(mask[i], up[i], 0), down[i] = SELECT(mask[i], down[i], 0);
  }
  if (job->pos_weight) {
    const REAL *restrict w = (const REAL *)job->pos_weight + row * job->pos_weight_stride + start;
    for (long i = 0; i < m; i++) odd |= (UNSIGNED)NAME(bits)(w[i]) >= infinite, up[i] *= w[i];
  }
  if (job->weight) {
    const REAL *restrict w = (const REAL *)job->weight + row * job->weight_stride + start;
    for (long i = 0; i < m; i++) odd |= (UNSIGNED)NAME(bits)(w[i]) >= infinite, up[i] *= w[i], down[i] *= w[i];
  }
  *strange |= odd != 0;
}

// The commonest tile by far: its targets are 0 or 1, and nothing else is said. Returns whether it is one; then its weights are
// known without arithmetic, and its positives listed. Where subnormal numbers count as 0, they do here.
#define SCAN(TYPE, BITS)                                                                     \
  {                                                                                          \
    const TYPE *restrict y = (const TYPE *)job->targets + at;                                \
    for (long i = 0; i < m; i++) { any |= BITS(y[i]), between |= BITS(y[i] - y[i] * y[i]); } \
    if (any && !between)                                                                     \
      for (long i = 0; i < m; i++) flag[i] = y[i] > 0;                                       \
  }

CLONES static int NAME(scan)(const Job *job, int64_t at, long start, long m, NAME(Tile) *restrict t,
                             NAME(Positives) *list) {
  ALIGNED uint8_t flag[TILE];
  INTEGER any = 0, between = 0;
  if (job->target_type == U8) SCAN(uint8_t, (INTEGER))
  else SCAN(REAL, NAME(bits))
  if (between) return 0;
  const REAL up = (REAL)job->full[0], down = (REAL)job->full[1];
  for (long i = 0; i < m; i++) t->down[i] = down;
  if (!any) return 1;
  long j = list->count;
  NAME(append)(flag, start, m, list);
  for (; j < list->count; j++) t->up[list->index[j] - start] = up, t->down[list->index[j] - start] = 0;
  return 1;
}
#undef SCAN

// Asks for as many logits, targets and places of the gradient again, to be there when this tile is done: a processor does not
// look so far ahead by itself. What lies behind the last of them is not touched.
INLINE void NAME(ask)(const Job *job, long row, long start, long m, const REAL *g) {
  const int a = bytes_of[job->logit_type], b = bytes_of[job->target_type], c = sizeof(REAL);
  const uintptr_t z = (uintptr_t)job->logits + (row * job->logit_stride + start + m) * a;
  const uintptr_t y = b ? (uintptr_t)job->targets + (row * job->target_stride + start + m) * b : z;
  const uintptr_t out = (uintptr_t)g + m * c;
  if (!g)
    for (long i = 0; i < m; i += 64 / c) PREFETCH(z + i * a, 0), PREFETCH(y + i * b, 0);
  else
    for (long i = 0; i < m; i += 64 / c) PREFETCH(z + i * a, 0), PREFETCH(y + i * b, 0), PREFETCH(out + i * c, 1);
}

// Both weights of a tile, which may be several short rows; appends the labels that may be positive.
static void NAME(weights)(const Job *job, long row, long start, long m, NAME(Tile) *t, NAME(Positives) *list) {
  const long width = m < job->labels ? m : job->labels;
  int unlisted = 0;
  if (job->target_type == WEIGHTS) {
    const REAL *from = (const REAL *)job->targets + row * job->target_stride + start;
    memcpy(t->up, from, m * sizeof(REAL)), memcpy(t->down, from + job->rows * job->labels, m * sizeof(REAL));
    unlisted = 1;
  } else if (job->target_type != SPARSE)
    unlisted = NAME(read)(job, row * job->target_stride + start, m, t) || job->smoothing > 0;
  for (long at = 0; at < m; at += width, row++) {
    if (job->target_type == SPARSE) NAME(place)(job, row, start, width, at, t, list);
    if (job->mask || job->weight || job->pos_weight)
      NAME(weigh)(job, row, start, width, t->up + at, t->down + at, &t->odd);
  }
  if (unlisted) NAME(pick)(t->up, start, m, list);
}

// The same of any tile, and the logits of its positives; returns where all logits lie. `g` is where its gradient will be, or
// null.
static const REAL *NAME(begin)(const Job *job, long row, long start, long m, NAME(Tile) *t, NAME(Positives) *list,
                               const REAL *g) {
  const REAL *z = NAME(load)(job, row, start, m, t->z);
  const long from = list->count;
  if (!t->even || !NAME(scan)(job, row * job->target_stride + start, start, m, t, list))
    NAME(weights)(job, row, start, m, t, list);
  const long end = list->count;
  list->count = from;
  for (long j = from; j < end; j++) { // what is masked, or has a weight of 0, is not positive
    const int32_t index = list->index[j];
    const REAL weight = t->up[index - start];
    if (!(weight > 0)) continue;
    list->index[list->count] = index, list->z[list->count] = z[index - start], list->weight[list->count++] = weight;
  }
  NAME(ask)(job, row, start, m, g);
  return z;
}

static int NAME(allocate)(const Job *job, NAME(Positives) *list) {
  const size_t most = (job->labels > TILE ? job->labels : TILE) + 16;
  list->count = 0;
  list->index = malloc(most * sizeof(int32_t)), list->z = malloc(most * sizeof(REAL)),
  list->weight = malloc(most * sizeof(REAL));
  return list->index && list->z && list->weight;
}

// Fills up with zeros to a whole vector: the curves are fastest so.
INLINE long NAME(pad)(NAME(Positives) *list, long from) {
  long m = list->count - from < TILE ? list->count - from : TILE, end = from + m;
  for (; (end - from) & 15 && end >= list->count; end++) list->z[end] = 0, list->weight[end] = 0;
  return end - from;
}
