// Row loops over tiles for one real type; included twice. They know pools, and no curve.

// Where the gradient of a tile is made: in place if it is of this type, else in the buffer, to be stored.
INLINE REAL *NAME(place_of)(const Job *job, long row, long start, REAL *buffer) {
  int here = job->gradient && job->logit_type == (sizeof(REAL) == 8 ? F64 : F32);
  return here ? (REAL *)job->gradient + row * job->labels + start : buffer;
}

INLINE void NAME(store)(const Job *job, long row, long start, long m, const REAL *restrict g) {
#ifdef SINGLE
  uint16_t *out = (uint16_t *)job->gradient + row * job->labels + start;
  if (job->logit_type == BF16) store_bf16(g, out, m);
  else if (job->logit_type == F16) store_f16(g, out, m);
#endif
}

// ---- sum: what each label of a tile costs, in t->value, and its gradient; returns the sum

static REAL NAME(sum_tile)(const Job *job, long row, long start, long m, const NAME(Settings) *s, NAME(Tile) *t) {
  const REAL *z;
  const long positives = NAME(begin)(job, row, start, m, (REAL)job->scale, t, &z);
  REAL *g = NAME(place_of)(job, row, start, t->slope);
  REAL sum = NAME(curves)[job->negative](z, t->down, t->value, g, m, s + 1);
  if (positives) {
    sum += NAME(curves)[job->positive](t->picked, t->weight, t->up, t->down, PADDED(positives), s);
    for (long j = 0; j < positives; j++) t->value[t->index[j]] += t->up[j], g[t->index[j]] += t->down[j];
  }
  if (job->gradient) NAME(store)(job, row, start, m, g);
  return sum;
}

static void NAME(sum_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t) {
  double sum = 0;
  for (long start = 0; start < job->labels; start += TILE) {
    sum += NAME(sum_tile)(job, row, start, job->labels - start < TILE ? job->labels - start : TILE, s, t);
  }
  ((REAL *)job->value)[row] = (REAL)sum;
}

// Several short rows that lie side by side, as one tile.
CLONES static void NAME(sum_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s, NAME(Tile) *t) {
  NAME(sum_tile)(job, row, 0, many * job->labels, s, t);
  for (long r = 0; r < many; r++) {
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = r * job->labels; i < (r + 1) * job->labels; i++) sum += t->value[i];
    ((REAL *)job->value)[row + r] = sum;
  }
}

// ---- pools of exponentials: a pass over the row for the state, and one over what it left behind for the gradient

// What the first pass leaves: per tile, the peaks of both sides and the number of positives; per positive, its label and
// its gradient up to a factor. Gradients of the negatives up to a factor stand where the gradient will.
typedef struct {
  double (*peaks)[2];
  int32_t *counts, *index;
  REAL *share, *g;
} NAME(Trace);

static int NAME(allocate)(const Job *job, NAME(Trace) *trace) {
  const size_t tiles = job->labels / TILE + 1, labels = job->labels;
  memset(trace, 0, sizeof *trace);
  if (!job->gradient) return 1;
  trace->peaks = malloc(tiles * sizeof *trace->peaks), trace->counts = malloc(tiles * sizeof(int32_t));
  trace->index = malloc(labels * sizeof(int32_t)), trace->share = malloc(labels * sizeof(REAL));
  trace->g = malloc(job->logit_type == BF16 || job->logit_type == F16 ? labels * sizeof(REAL) : 1);
  return trace->peaks && trace->counts && trace->index && trace->share && trace->g;
}

static void NAME(release)(NAME(Trace) *trace) {
  free(trace->peaks), free(trace->counts), free(trace->index), free(trace->share), free(trace->g);
}

// Adds a tile to one side of a row: e = weight exp(value - peak), and share = e slope.
CLONES static void NAME(add)(const REAL *restrict value, const REAL *restrict slope, const REAL *restrict weight, long m,
                             REAL *restrict share, Side *side) {
  INTEGER highest = NAME(sortable)(-LARGE);
  for (long i = 0; i < m; i++) {
    INTEGER x = NAME(sortable)(SELECT(weight[i] > 0, value[i], -LARGE));
    highest = x > highest ? x : highest;
  }
  REAL top = NAME(unsortable)(highest), sum = 0, mass = 0;
  if (!(top <= side->peak)) {
    side->sum *= exp(side->peak - top);
    side->peak = top;
  }
  top = (REAL)side->peak;
#pragma omp simd reduction(+ : sum, mass)
  for (long i = 0; i < m; i++) {
    const REAL e = SELECT(weight[i] > 0, weight[i] * EXP(value[i] - top), 0);
    sum += e, mass += weight[i], share[i] = SELECT(weight[i] > 0, e * slope[i], 0);
  }
  side->sum += sum, side->mass += mass;
}

// Softmax: one distribution over all known labels, whatever their weights.
static void NAME(make_known)(NAME(Tile) *t, long m) {
  for (long i = 0; i < m; i++) t->down[i] = t->up[i] + t->down[i] > 0;
}

static void NAME(fold_tile)(const Job *job, long row, long start, const NAME(Settings) *s, NAME(Tile) *t, Side *sides,
                            NAME(Trace) *trace, long *found) {
  static ALIGNED const REAL ones[TILE] = {ONES};
  const long m = job->labels - start < TILE ? job->labels - start : TILE;
  const REAL *z;
  const long positives = NAME(begin)(job, row, start, m, 1, t, &z);
  REAL *g = trace->g ? NAME(place_of)(job, row, start, trace->g + start) : t->slope;
  if (job->pool == SOFTMAX) NAME(make_known)(t, m);
  NAME(curves)[job->negative](z, ones, t->value, t->slope, m, s + 1);
  NAME(add)(t->value, t->slope, t->down, m, g, sides + 1);
  if (positives) {
    NAME(curves)[job->positive](t->picked, ones, t->value, t->slope, PADDED(positives), s);
    for (long j = 0; j < positives; j++) sides->dot += (double)t->weight[j] * t->value[j];
    NAME(add)(t->value, t->slope, t->weight, positives, t->up, sides);
  }
  if (!trace->g) return;
  const long tile = start / TILE;
  trace->peaks[tile][0] = sides[0].peak, trace->peaks[tile][1] = sides[1].peak, trace->counts[tile] = (int32_t)positives;
  for (long j = 0; j < positives; j++, ++*found) {
    trace->index[*found] = (int32_t)(start + t->index[j]);
    trace->share[*found] = job->pool == SOFTMAX ? t->weight[j] * t->slope[j] : t->up[j];
  }
}

CLONES static void NAME(multiply)(REAL *restrict g, REAL factor, long m) {
  for (long i = 0; i < m; i++) g[i] = SELECT(g[i] == 0, 0, g[i] * factor); // 0 where unknown, whatever the row
}

static void NAME(exponential_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Trace) *trace) {
  Side sides[2] = {{-LARGE, 0, 0, 0, 0}, {-LARGE, 0, 0, 0, 0}};
  long found = 0;
  for (long start = 0; start < job->labels; start += TILE) {
    NAME(fold_tile)(job, row, start, s, t, sides, trace, &found);
  }
  ((REAL *)job->value)[row] = (REAL)(finish(job, sides) * job->scale);
  if (!job->gradient) return;
  const int32_t *index = trace->index;
  const REAL *share = trace->share;
  for (long start = 0; start < job->labels; start += TILE) {
    const long m = job->labels - start < TILE ? job->labels - start : TILE, tile = start / TILE;
    REAL *g = NAME(place_of)(job, row, start, trace->g + start), factor[2];
    for (int i = 0; i < 2; i++) {
      double relative = job->pool == SOFTMAX && i == 0 ? 1 : exp(trace->peaks[tile][i] - sides[i].peak);
      factor[i] = (REAL)(sides[i].factor * job->scale * relative);
    }
    NAME(multiply)(g, factor[1], m);
    for (int32_t j = 0; j < trace->counts[tile]; j++, index++, share++) g[*index - start] += factor[0] * *share;
    NAME(store)(job, row, start, m, g);
  }
}

// ---- all rows

static int NAME(may_be_probabilities)(const Job *job) {
  NAME(Tile) t;
  long m = !job->rows ? 0 : job->labels < TILE ? job->labels : TILE, i = 0;
  const REAL *z = NAME(load)(job, 0, 0, m, t.z);
  while (i < m && z[i] >= 0 && z[i] <= 1) i++;
  return m > 0 && i == m;
}

static void NAME(run)(Job *job) {
  NAME(Settings) s[2];
  for (int side = 0; side < 2; side++) {
    REAL *at = (REAL *)(s + side);
    for (int i = 0; i < SETTINGS; i++) at[i] = (REAL)job->settings[side][i];
  }
  // how many rows make a tile: one, unless they are short and nothing but logits and targets is read, both without gaps
  int bare = job->pool == SUM && !job->mask && !job->weight && !job->pos_weight && job->target_type != SPARSE &&
             job->logit_stride == job->labels && job->target_stride == job->labels && job->labels > 0;
  long together = bare && job->labels <= TILE / 2 ? TILE / job->labels : 1, blocks = (job->rows + together - 1) / together;
  int odd = 0, failed = 0;
#pragma omp parallel num_threads(job->threads) reduction(| : odd, failed) if (job->threads > 1)
  {
    NAME(Tile) t;
    NAME(Trace) trace;
    t.odd = 0;
    if (job->pool != SUM) failed = !NAME(allocate)(job, &trace);
#pragma omp for schedule(static)
    for (long block = 0; block < blocks; block++) {
      long row = block * together, many = job->rows - row < together ? job->rows - row : together;
      if (together > 1) NAME(sum_short_rows)(job, row, many, s, &t);
      else if (job->pool == SUM) NAME(sum_row)(job, row, s, &t);
      else if (!failed) NAME(exponential_row)(job, row, s, &t, &trace);
    }
    if (job->pool != SUM) NAME(release)(&trace);
    odd = t.odd;
  }
  job->odd = odd, job->failed = failed, job->probable = NAME(may_be_probabilities)(job);
}
