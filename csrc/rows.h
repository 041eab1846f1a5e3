// Row loops over tiles for one real type; included twice. They know targets and pools, and no curve.

INLINE void NAME(load)(const Job *job, long row, long start, long m, REAL *restrict z) {
  long at = row * job->logit_stride + start;
#ifdef SINGLE
  if (job->logit_type == BF16) load_bf16((const uint16_t *)job->logits + at, z, m);
  else if (job->logit_type == F16) load_f16((const uint16_t *)job->logits + at, z, m);
  else
#endif
    memcpy(z, (const REAL *)job->logits + at, m * sizeof(REAL));
}

INLINE void NAME(store)(const Job *job, long row, long start, long m, const REAL *restrict g) {
  long at = row * job->labels + start;
#ifdef SINGLE
  if (job->logit_type == BF16) store_bf16(g, (uint16_t *)job->gradient + at, m);
  else if (job->logit_type == F16) store_f16(g, (uint16_t *)job->gradient + at, m);
  else
#endif
    memcpy((REAL *)job->gradient + at, g, m * sizeof(REAL));
}

// The next tile, while this one is computed: the pauses between tiles make the processor's own prefetching give up.
INLINE void NAME(prefetch)(const Job *job, long row, long start) {
  long size = job->logit_type == F64 ? 8 : job->logit_type == F32 ? 4 : 2, target = job->target_type == U8 ? 1 : job->target_type == F64 ? 8 : 4;
  const char *z = (const char *)job->logits + (row * job->logit_stride + start + TILE) * size;
  for (long at = 0; at < TILE * size; at += 64) PREFETCH(z + at, 0);
  if (job->target_type != SPARSE) {
    const char *t = (const char *)job->targets + (row * job->target_stride + start + TILE) * target;
    for (long at = 0; at < TILE * target; at += 64) PREFETCH(t + at, 0);
  }
  if (job->gradient) {
    const char *g = (const char *)job->gradient + (row * job->labels + start + TILE) * size;
    for (long at = 0; at < TILE * size; at += 64) PREFETCH(g + at, 1);
  }
}

static void NAME(scatter)(const Job *job, long row, long start, long m, REAL *restrict y) {
  memset(y, 0, m * sizeof(REAL));
  for (int64_t e = job->crow[row]; e < job->crow[row + 1]; e++) {
    int64_t label = job->col[e] - start;
    if (label >= 0 && label < m) y[label] = job->sparse_values ? (REAL)job->sparse_values[e] : 1;
  }
}

// Both weights of a tile: y and 1 - y, smoothed and weighted; 0 where the label is unknown.
CLONES static void NAME(weigh)(const Job *job, long row, long start, long m, REAL *restrict up, REAL *restrict down) {
  long at = row * job->target_stride + start;
  if (job->target_type == SPARSE) NAME(scatter)(job, row, start, m, up);
  else if (job->target_type == U8) {
    const uint8_t *t = (const uint8_t *)job->targets + at;
    for (long i = 0; i < m; i++) up[i] = (REAL)(int32_t)t[i];
  } else if (job->target_type == F32) {
    const float *t = (const float *)job->targets + at;
    for (long i = 0; i < m; i++) up[i] = (REAL)t[i];
  } else {
    const double *t = (const double *)job->targets + at;
    for (long i = 0; i < m; i++) up[i] = (REAL)t[i];
  }
  const REAL smoothing = (REAL)job->smoothing, ignored = (REAL)job->ignored;
  if (job->ignoring && job->target_type != SPARSE)
    for (long i = 0; i < m; i++) up[i] = SELECT(up[i] == ignored, (REAL)NAN, up[i]);
  for (long i = 0; i < m; i++) {
    int known = up[i] == up[i];
    REAL y = up[i] * (1 - smoothing) + smoothing / 2;
    up[i] = SELECT(known, y, 0), down[i] = SELECT(known, 1 - y, 0);
  }
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

// The labels of a tile with a positive weight: indices, and their logits side by side.
CLONES static long NAME(pick)(const REAL *restrict up, const REAL *restrict z, long m, int32_t *restrict index,
                              REAL *restrict picked) {
  ALIGNED uint8_t flag[TILE];
  for (long i = 0; i < m; i++) flag[i] = up[i] > 0;
  memset(flag + m, 0, TILE - m);
  long count = 0;
  for (long i = 0; i < m; i += 8) {
    uint64_t word;
    memcpy(&word, flag + i, 8);
    for (; word; word &= word - 1) {
      index[count] = (int32_t)(i + LOWEST(word) / 8);
      picked[count] = z[index[count]], count++;
    }
  }
  return count;
}

typedef struct {
  ALIGNED REAL z[TILE + 16], up[TILE + 16], down[TILE + 16], value[TILE + 16], slope[TILE + 16], g[TILE + 16],
      picked[TILE + 16], cost[TILE + 16];
  int32_t index[TILE + 16];
} NAME(Tile);

// Softmax: one distribution over all known labels, whatever their weights.
static void NAME(make_known)(NAME(Tile) *t, long m) {
  for (long i = 0; i < m; i++) t->down[i] = t->up[i] + t->down[i] > 0;
}

// Weights of a tile, and the negative curve of all its labels; returns how many are positive, with their logits picked.
static long NAME(begin)(const Job *job, long row, long start, long m, const NAME(Settings) *s, NAME(Tile) *t) {
  NAME(load)(job, row, start, m, t->z);
  NAME(weigh)(job, row, start, m, t->up, t->down);
  if (job->pool == SOFTMAX) NAME(make_known)(t, m);
  NAME(curves)[job->negative](t->z, t->value, t->slope, m, s + 1);
  return NAME(pick)(t->up, t->z, m, t->index, t->picked);
}

// ---- sum: one pass

CLONES static void NAME(negatives)(NAME(Tile) *restrict t, long m, REAL scale) {
  for (long i = 0; i < m; i++) {
    int there = t->down[i] > 0;
    t->g[i] = SELECT(there, t->down[i] * t->slope[i] * scale, 0);
    t->cost[i] = SELECT(there, t->down[i] * t->value[i], 0);
  }
}

CLONES static REAL NAME(total)(const REAL *restrict x, long m) {
  REAL sum = 0;
  for (long i = 0; i < m; i++) sum += x[i];
  return sum;
}

// What each label of a tile costs, and its gradient.
static void NAME(sum_tile)(const Job *job, long row, long start, long m, const NAME(Settings) *s, NAME(Tile) *t) {
  const REAL scale = (REAL)job->scale;
  long positives = NAME(begin)(job, row, start, m, s, t);
  NAME(negatives)(t, m, scale);
  if (positives) {
    NAME(curves)[job->positive](t->picked, t->value, t->slope, positives, s);
    for (long j = 0; j < positives; j++) {
      long i = t->index[j];
      t->cost[i] += t->up[i] * t->value[j];
      t->g[i] += t->up[i] * t->slope[j] * scale;
    }
  }
  if (job->gradient) NAME(store)(job, row, start, m, t->g);
}

static void NAME(sum_row)(const Job *job, long row, const NAME(Settings) *s) {
  NAME(Tile) t;
  double sum = 0;
  for (long start = 0; start < job->labels; start += TILE) {
    long m = job->labels - start < TILE ? job->labels - start : TILE;
    NAME(prefetch)(job, row, start);
    NAME(sum_tile)(job, row, start, m, s, &t);
    sum += NAME(total)(t.cost, m);
  }
  ((REAL *)job->value)[row] = (REAL)sum;
}

// Several short rows that lie side by side, as one tile.
static void NAME(sum_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s) {
  NAME(Tile) t;
  NAME(sum_tile)(job, row, 0, many * job->labels, s, &t);
  for (long r = 0; r < many; r++) ((REAL *)job->value)[row + r] = NAME(total)(t.cost + r * job->labels, job->labels);
}

// ---- pools of exponentials: one pass for the state, one for the gradient

CLONES static REAL NAME(top)(const REAL *restrict value, const REAL *restrict weight, long m) {
  INTEGER top = NAME(sortable)(-LARGE);
  for (long i = 0; i < m; i++) {
    INTEGER x = NAME(sortable)(SELECT(weight[i] > 0, value[i], -LARGE));
    top = x > top ? x : top;
  }
  return NAME(unsortable)(top);
}

CLONES static void NAME(add_side)(const REAL *restrict value, const REAL *restrict weight, long m, Side *side) {
  REAL top = NAME(top)(value, weight, m), sum = 0, mass = 0;
  if (!(top <= side->peak)) {
    side->sum *= exp(side->peak - top);
    side->peak = top;
  }
  top = (REAL)side->peak;
  for (long i = 0; i < m; i++) {
    sum += SELECT(weight[i] > 0, weight[i] * EXP(value[i] - top), 0);
    mass += weight[i];
  }
  side->sum += sum, side->mass += mass;
}

CLONES static void NAME(share_negatives)(NAME(Tile) *restrict t, long m, REAL peak, REAL factor) {
  for (long i = 0; i < m; i++) {
    REAL share = factor * t->down[i] * EXP(t->value[i] - peak) * t->slope[i];
    t->g[i] = SELECT(t->down[i] > 0, share, 0);
  }
}

static void NAME(fold_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, Side *sides) {
  for (long start = 0; start < job->labels; start += TILE) {
    long m = job->labels - start < TILE ? job->labels - start : TILE;
    long positives = NAME(begin)(job, row, start, m, s, t);
    NAME(add_side)(t->value, t->down, m, sides + 1);
    if (!positives) continue;
    NAME(curves)[job->positive](t->picked, t->value, t->slope, positives, s);
    for (long j = 0; j < positives; j++) t->picked[j] = t->up[t->index[j]];
    NAME(add_side)(t->value, t->picked, positives, sides);
    for (long j = 0; j < positives; j++) sides->dot += (double)t->picked[j] * t->value[j];
  }
}

static void NAME(exponential_row)(const Job *job, long row, const NAME(Settings) *s) {
  NAME(Tile) t;
  Side sides[2] = {{-LARGE, 0, 0, 0, 0}, {-LARGE, 0, 0, 0, 0}};
  NAME(fold_row)(job, row, s, &t, sides);
  ((REAL *)job->value)[row] = (REAL)finish(job, sides);
  if (!job->gradient) return;
  const REAL up = (REAL)(sides[0].factor * job->scale), down = (REAL)(sides[1].factor * job->scale);
  for (long start = 0; start < job->labels; start += TILE) {
    long m = job->labels - start < TILE ? job->labels - start : TILE;
    long positives = NAME(begin)(job, row, start, m, s, &t);
    NAME(share_negatives)(&t, m, (REAL)sides[1].peak, down);
    if (positives) {
      NAME(curves)[job->positive](t.picked, t.value, t.slope, positives, s);
      for (long j = 0; j < positives; j++) {
        REAL share = job->pool == SOFTMAX ? 1 : EXP(t.value[j] - (REAL)sides[0].peak);
        t.g[t.index[j]] += up * t.up[t.index[j]] * share * t.slope[j];
      }
    }
    NAME(store)(job, row, start, m, t.g);
  }
}

static void NAME(run)(const Job *job) {
  NAME(Settings) s[2];
  for (int side = 0; side < 2; side++) {
    REAL *at = (REAL *)(s + side);
    for (int i = 0; i < SETTINGS; i++) at[i] = (REAL)job->settings[side][i];
  }
  // how many rows make a tile: one, unless they are short and nothing but logits and targets is read, both without gaps
  int bare = job->pool == SUM && !job->mask && !job->weight && !job->pos_weight && job->target_type != SPARSE &&
             job->logit_stride == job->labels && job->target_stride == job->labels && job->labels > 0;
  long together = bare && job->labels <= TILE / 2 ? TILE / job->labels : 1, blocks = (job->rows + together - 1) / together;
#pragma omp parallel for num_threads(job->threads) schedule(static) if (job->threads > 1)
  for (long block = 0; block < blocks; block++) {
    long row = block * together, many = job->rows - row < together ? job->rows - row : together;
    if (together > 1) NAME(sum_short_rows)(job, row, many, s);
    else if (job->pool == SUM) NAME(sum_row)(job, row, s);
    else NAME(exponential_row)(job, row, s);
  }
}

// Targets of one type: how many are NaN, and how many lie outside [0, 1].
CLONES static void NAME(survey)(const REAL *restrict y, long n, int64_t *restrict found) {
  for (long start = 0; start < n; start += 4096) {
    long m = n - start < 4096 ? n - start : 4096;
    int32_t unknown = 0, wrong = 0;
    for (long i = 0; i < m; i++) {
      REAL x = y[start + i];
      unknown += x != x;
      wrong += (x < 0) | (x > 1);
    }
    found[0] += unknown, found[1] += wrong;
  }
}
